"""Runs one process or several: workers and their supervisor, signals, run folders.

May import application, api, state, server, items, observability, context, settings, errors.
Start reading at ``run``, then ``supervisor``.
"""
