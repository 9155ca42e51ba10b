"""Scores a whole user base: parquet in, parquet out, to the bit what the service answers.

May import ``feature_store``, ``model_export.bundle`` and the rooms of ``service`` that score.
Start reading at ``run``, then ``worker``.
"""
