"""Reads and checks the input: files, columns, requests, their digest.

May import what ``batch`` may.
Start reading at ``columns``.
"""
