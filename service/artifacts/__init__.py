"""Imports bundles from disk: copies, verifies and tries them in a sandbox.

May import observability, private_directory, context, settings, errors.
Start reading at ``importer``.
"""
