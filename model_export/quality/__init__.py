"""The int8 gate, calibration and golden cases: what a bundle is held to.

May import ``model_export.bundle``, ``graphs``, ``training``.
Start reading at ``gate``.
"""
