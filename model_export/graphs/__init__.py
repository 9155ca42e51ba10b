"""Folds the network exactly and writes its ONNX graphs: towers and ranker.

May import ``model_export.bundle``, ``feature_store`` and ``training``.
Start reading at ``fold``.
"""
