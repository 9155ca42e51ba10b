"""Writes the results of a run: HTML page, terminal summary, HDR logs and columns.

May import analysis, generator, experiments.
Start reading at ``page``.
"""
