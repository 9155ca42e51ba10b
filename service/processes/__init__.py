"""One process or several: workers and their supervisor, signals, folders of their own.

May import application, server, items, observability, settings, errors.
Start reading at ``run``, then ``supervisor``.
"""
