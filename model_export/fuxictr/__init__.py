"""Checkpoints of FuxiCTR, read into our network.

May import ``model_export.bundle``, ``training``.
Start reading at ``checkpoint``.
"""
