"""Runs experiments: search, compare, swap, soak, and the self-check against a stub.

May import generator, analysis, oracle.
Start reading at ``search``.
"""
