"""How long work tells how far it has come."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]  # what, done, of how many


def no_progress(what: str, done: int, total: int) -> None:
    """For callers without a screen."""
