"""Measures a bundle's quality: golden answers, the int8 gate, calibration.

May import ``model_export.bundle``, ``graphs``, ``training``.
Start reading at ``gate``.
"""
