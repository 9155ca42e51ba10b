"""Serves the console: pages for a browser at the admin port, which show and steer the service.

May import api, state, lifecycle, scoring, encoding, artifacts, models, items, admission, engine,
server, access, private_directory, observability, context, settings, errors.
Start reading at ``routes``, then ``guard``.
"""
