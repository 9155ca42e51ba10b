"""Scores requests with the pipeline of the service.

May import what ``batch`` may.
Start reading at ``scorer``.
"""
