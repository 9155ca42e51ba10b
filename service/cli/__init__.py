"""Commands beside ``serve``: models of a running service, an example request.

May import client and settings.
Start reading at ``models``.
"""
