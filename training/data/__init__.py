"""Reads training data: rows, catalogue, users and popularity levels, from parquet into arrays.

May import ``feature_store`` and the modules on top of ``training``.
Start reading at ``dataset``, then ``reader``.
"""
