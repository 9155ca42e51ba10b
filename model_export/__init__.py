"""Folds: a checkpoint becomes a bundle of small ONNX graphs that answer as the network does.

``bundle`` and ``runtime`` (and what they import) need neither torch nor onnx: serving uses them.
"""
