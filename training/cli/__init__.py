"""Implements the commands of ``python -m training``, one file a command.

May import all of ``training``; imports torch within commands, so that ``--help`` is quick.
Start reading at ``fit``.
"""
