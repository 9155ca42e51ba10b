"""Measures a bundle's quality: golden answers, the gates of int8 and bf16, calibration.

May import ``graphs``, ``bundle``, ``feature_store`` and ``training``.
Start reading at ``gate``.
"""
