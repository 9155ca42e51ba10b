"""Decides what is let in: scoring by forecast service time, other work by event-loop time.

May import engine, observability, context, settings, errors.
Start reading at ``admission.Admission.enter``.
"""
