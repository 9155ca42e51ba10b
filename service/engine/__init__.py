"""Runs graphs on threads, from a queue with priorities and round robin within each.

May import observability, context, settings, errors.
Start reading at ``engine.Engine.run``.
"""
