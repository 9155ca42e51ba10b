"""Serves click probabilities: a user and a list of candidates in, their scores out.

May import ``feature_store`` and ``model_export.bundle``; docs/architecture.md has the map of rooms.
Start reading at ``application`` for what there is, at ``api.score`` for the way of a request.
"""

import os

# onnxruntime for Linux sends events about sessions and graphs to its maker and keeps a device id in
# the home directory, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
