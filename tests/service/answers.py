"""Answers that nobody scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.scoring.result import ScoreResult


def answer(
    scores: Sequence[float] | np.ndarray,
    *,
    status: Sequence[int] | np.ndarray | None = None,
    cold: Sequence[bool] | None = None,
    history: int = 0,
    candidates: np.ndarray | None = None,
    history_lost: bool = False,
) -> ScoreResult:
    """To a list of as many candidates, 0, 1, …; ``status`` is theirs, and the history is all there.
    Without it everything was in the table."""
    count = len(scores)
    everywhere = np.zeros(history + count, np.uint8)
    marks = np.zeros(count, np.bool_)
    if status is not None:
        everywhere[history:] = status
    if cold is not None:
        marks[:] = cold
    return ScoreResult(
        candidates=np.arange(count) if candidates is None else candidates,
        scores=np.asarray(scores, np.float32),
        history=np.arange(history),
        statuses=None if status is None else everywhere,
        cold=marks,
        history_lost=history_lost,
    )
