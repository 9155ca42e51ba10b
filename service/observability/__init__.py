"""Logs, metrics, traces, and the guard of background tasks and threads.

May import errors and settings of the service alone.
Start reading at ``metrics``.
"""
