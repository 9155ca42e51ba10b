"""The parts of ``python -m training``'s command line that are not one command of training itself.

May import all of ``training``; imports torch within commands, so that ``--help`` is quick.
Start reading at ``console``.
"""
