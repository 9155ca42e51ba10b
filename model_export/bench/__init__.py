"""Benchmarks the folded network against the published one and against its lower bound.

May import all of ``model_export``. Start reading at ``run``.
"""
