"""Measures a bundle's quality: golden answers, the int8 gate, calibration.

May import ``graphs``, ``bundle``, ``feature_store`` and ``training``.
Start reading at ``gate``.
"""
