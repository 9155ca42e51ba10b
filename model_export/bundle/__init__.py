"""A bundle: its files, its proof and its graphs at run time. Runs without torch and onnx.

May import ``feature_store`` alone.
Start reading at ``bundle``, then ``runtime``.
"""
