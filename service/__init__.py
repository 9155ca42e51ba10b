"""Serves click probabilities: a user and a list of candidates in, their scores out.

May import ``feature_store`` and ``model_export.bundle``; docs/architecture.md has the map of rooms.
Start reading at ``application`` for what there is, at ``api.score`` for the way of a request.
"""
