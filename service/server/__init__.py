"""Serves HTTP/1.1: listening sockets, connections, framing and limits. Knows no application.

May import observability, context, settings, errors.
Start reading at ``protocol``, then ``framing``.
"""
