"""The commands of ``python -m model_export``.

May import all of ``model_export``.
Start reading at ``app``.
"""
