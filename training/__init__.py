"""Learns: parquet files in, a Quadratic Interest Network checkpoint out."""
