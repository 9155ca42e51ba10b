"""Analyses a run: quantiles, server stages, service levels, queueing theory.

May import ``loadtest.generator``, ``oracle``, ``environment`` and ``units``.
Start reading at ``results``.
"""
