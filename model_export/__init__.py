"""Exports a checkpoint to a bundle: folds it exactly into small ONNX graphs and verifies them.

``bundle`` needs neither torch nor onnx: the service and the load test import it alone.
May import ``feature_store`` and ``training``. Start reading at ``build``.
"""

import os

# onnxruntime for Linux sends events about sessions and graphs to its maker and keeps a device id in
# the home directory, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
