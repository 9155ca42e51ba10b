"""Questions that take several runs: search, compare, swap, soak, self-check.

May import generator, analysis.
Start reading at ``search``.
"""
