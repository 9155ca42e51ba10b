"""Parquet files: items and histories read, joined, checked, loaded, exported.

May import the rest of ``feature_store`` but ``cli``.
Start reading at ``load``.
"""
