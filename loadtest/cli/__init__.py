"""Implements the commands of ``python -m loadtest``.

May import all of ``loadtest``.
Start reading at ``app``.
"""
