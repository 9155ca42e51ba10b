"""Encodes texts: an encoder bundle, its own threads, admission by tokens.

May import artifacts, engine, observability, context, settings, errors.
Start reading at ``encoding.TextEncoding.encode``.
"""
