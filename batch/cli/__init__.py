"""The commands of ``python -m batch``.

May import all of ``batch``.
Start reading at ``score``.
"""
