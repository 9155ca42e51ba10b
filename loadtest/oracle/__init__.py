"""Checks answers against a bundle's own numbers.

May import ``model_export.bundle``, ``feature_store``, generator.
Start reading at ``oracle``.
"""
