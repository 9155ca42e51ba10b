"""ONNX graphs: the exact folds, the towers and the ranker, and how they are written.

May import ``model_export.bundle``, ``training``.
Start reading at ``fold``.
"""
