"""Measures scores on held-out rows, ranking and calibration, and draws them.

May import ``training.data`` and the modules on top of ``training``.
Start reading at ``evaluate``.
"""
