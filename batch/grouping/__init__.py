"""Partitions rows by user on disk, and groups the rows of each request.

May import what ``batch`` may.
Start reading at ``spill``.
"""
