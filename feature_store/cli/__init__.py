"""The commands of ``python -m feature_store``.

May import all of ``feature_store``.
Start reading at ``app``.
"""
