"""Implements the commands other than ``serve``: models of a running service, an example request.

May import client, observability, context, settings, errors.
Start reading at ``models``.
"""
