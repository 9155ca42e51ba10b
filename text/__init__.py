"""Text: corpora, bilingual text encoders and their evaluation.

May import ``feature_store``, ``training`` and ``model_export``.
Start reading at ``corpus``.
"""
