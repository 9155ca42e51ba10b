"""Imports FuxiCTR checkpoints into our network.

May import ``model_export.bundle``, ``training``.
Start reading at ``checkpoint``.
"""
