"""Compares the scores that two runs gave the same input: labels, calibration, ranks, segments.

May import what ``batch`` may.
Start reading at ``comparison``.
"""
