"""Defines the progress callback of a build."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]  # step, done, total


def no_progress(step: str, done: int, total: int) -> None:
    """Ignore progress."""
