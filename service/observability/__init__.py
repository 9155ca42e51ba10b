"""Provides logs, metrics, traces, and supervision of background tasks and threads.

May import context, settings, errors.
Start reading at ``metrics``.
"""
