"""Answers that nobody scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.answer import Answer
from service.item_table import ItemTable
from service.items import FoundItems
from tests.service.world import SMALL


def answer(
    scores: Sequence[float] | np.ndarray,
    *,
    status: Sequence[int] | np.ndarray | None = None,
    cold: Sequence[bool] | None = None,
    history: int = 0,
    candidates: np.ndarray | None = None,
    history_lost: bool = False,
) -> Answer:
    """To a list of as many candidates, 0, 1, …; ``status`` is theirs, and the history is all there.
    Without it everything was in the table."""
    count = len(scores)
    everywhere = np.zeros(history + count, np.uint8)
    marks = np.zeros(history + count, np.bool_)
    if status is not None:
        everywhere[history:] = status
    if cold is not None:
        marks[history:] = cold
    slots = np.zeros(history + count, np.int64)
    return Answer(
        candidates=np.arange(count) if candidates is None else candidates,
        scores=np.asarray(scores, np.float32),
        history=np.arange(history),
        found=FoundItems(
            ItemTable(SMALL, 1), slots, slots, marks, None if status is None else everywhere
        ),
        history_lost=history_lost,
    )
