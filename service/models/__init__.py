"""Keeps loaded models: the registry, traffic split, and leases that keep one in memory.

May import items, observability, context, settings, errors.
Start reading at ``registry.ModelRegistry``.
"""
