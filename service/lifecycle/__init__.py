"""A model's life: load, switch, canary, shadow, rollback, fleet; and item changes.

May import scoring, models, items, artifacts, engine, observability, context, errors, settings.
Start reading at ``manager``.
"""
