"""Imports FuxiCTR checkpoints into our network.

May import ``model_export.bundle``, ``feature_store`` and ``training``.
Start reading at ``checkpoint``.
"""
