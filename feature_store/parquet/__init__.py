"""Reads, joins, checks, loads and exports parquet files of items and histories.

May import the modules on top of ``feature_store``, not the other rooms.
Start reading at ``load``.
"""
