"""Threads that compute, and the queue of what waits for them, by priority and in turns.

May import context, errors, observability.
Start reading at ``engine.Engine.run``.
"""
