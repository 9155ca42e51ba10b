"""Who may do what: tokens and keys, hosts, origins, the audit log of administrators.

May import context, observability, errors, settings.
Start reading at ``middleware``.
"""
