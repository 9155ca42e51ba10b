"""Evaluates encoders on the tasks of a corpus, beside peers on the same items.

May import ``training``'s progress and naming of files in errors, and ``text.corpus``; no torch.
Start reading at ``tasks``.
"""
