"""Decides what is let in: scoring by its forecast time, other work by the event loop's time.

May import engine, observability, context, errors.
Start reading at ``admission.Admission.enter``.
"""
