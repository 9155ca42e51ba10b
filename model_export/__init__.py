"""Folds: a QIN checkpoint in, a bundle of small ONNX graphs out."""
