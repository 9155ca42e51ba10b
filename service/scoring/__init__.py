"""The main path: a query, its history, its items, the ranking, the result.

May import models, items, admission, engine, observability, context, errors.
Start reading at ``pipeline``.
"""
