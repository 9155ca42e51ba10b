"""Manages versions: load, switch, canary, shadow, rollback, fleet; follows item changes.

May import scoring, models, items, encoding, artifacts, admission, engine, observability, context,
settings, errors.
Start reading at ``manager``.
"""
