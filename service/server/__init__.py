"""HTTP/1.1: listening sockets, connections, framing and their limits. Knows no application.

May import observability, errors, settings.
Start reading at ``protocol``, then ``framing``.
"""
