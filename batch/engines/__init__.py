"""Runs units on worker processes of this machine, or on a Ray cluster.

May import what ``batch`` may.
Start reading at ``engine``.
"""
