"""Writes parts, rejects and the manifest, each whole or not at all.

May import what ``batch`` may.
Start reading at ``parts``.
"""
