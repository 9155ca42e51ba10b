"""Bundles on disk: where they arrive, how they are copied, checked and tried in a sandbox.

May import observability, errors, settings.
Start reading at ``importer``.
"""
