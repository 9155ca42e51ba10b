"""Text: corpora, bilingual text encoders and their evaluation.

May import ``feature_store`` and ``training``.
Start reading at ``corpus``.
"""
