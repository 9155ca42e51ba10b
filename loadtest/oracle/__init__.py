"""Compares served scores with the offline answer of a bundle or of the stub.

May import ``model_export.bundle``, ``feature_store``, generator and the stub's scores.
Start reading at ``oracle``.
"""
