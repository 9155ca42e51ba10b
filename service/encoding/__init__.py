"""Encodes texts: encoder bundles, threads of its own, admission by tokens.

May import artifacts, engine, observability, context, settings, errors.
Start reading at ``encoding.TextEncoding.encode``.
"""
