"""Implements the commands of ``python -m text``, one file a command group.

May import all of ``text``; imports torch within commands, so that ``--help`` is quick.
Start reading at ``corpus``.
"""
