"""Loaded models: versions, which one answers whom, and leases that keep one alive.

May import items, observability, errors.
Start reading at ``registry.ModelRegistry``.
"""
