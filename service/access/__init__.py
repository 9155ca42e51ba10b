"""Checks who may do what: tokens, API keys, Host and Origin; logs administrators' requests.

May import observability, context, settings, errors.
Start reading at ``middleware``.
"""
