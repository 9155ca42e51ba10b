"""Exports a checkpoint to a bundle: folds it exactly into small ONNX graphs and verifies them.

``bundle`` needs neither torch nor onnx: the service and the load test import it alone.
May import ``feature_store`` and ``training``. Start reading at ``build``.
"""
