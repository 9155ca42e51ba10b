"""Scores a query, the main path: history, items, ranking, result.

May import models, items, admission, engine, observability, context, settings, errors.
Start reading at ``pipeline``.
"""
