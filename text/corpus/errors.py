"""The error of this room."""

from __future__ import annotations


class CorpusError(ValueError):
    """An unusable corpus, archive or file; the message is one line that names it."""
