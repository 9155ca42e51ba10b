"""Opens, verifies and runs bundles, without torch and onnx.

May import ``feature_store`` alone.
Start reading at ``bundle``, then ``runtime``.
"""
