"""Scores of requests as arrays, and what was not ordinary about them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import CORRUPT, MISSING
from model_export.bundle.vectors import Floats
from service.scoring.result import ScoreResult

# In the answer of ``/v1/score``: cold_items, unknown_items, unreadable_items, without_content.
ITEM_STATUS = ("scored", "cold", "unknown", "unreadable", "without_content", "rejected")
SCORED, COLD, UNKNOWN, UNREADABLE, WITHOUT_CONTENT, REJECTED = range(len(ITEM_STATUS))
# cold: no history; degraded: it, an item in it or the record could not be read.
USER_STATUS = ("known", "cold", "degraded", "rejected")
KNOWN_USER, COLD_USER, DEGRADED, REJECTED_USER = range(len(USER_STATUS))

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of G requests with E candidates in all."""

    scores: Floats  # (E,) NaN: none
    items: Codes  # (E,) of ITEM_STATUS
    users: Codes  # (G,) of USER_STATUS
    faults: dict[int, str] = field(default_factory=dict)  # request -> why it has no scores

    @classmethod
    def empty(cls, requests: int, candidates: int) -> Scores:
        """Scores of requests that are all rejected so far."""
        none = np.full(candidates, np.nan, np.float32)
        items = np.full(candidates, REJECTED, np.uint8)
        return cls(none, items, np.full(requests, REJECTED_USER, np.uint8))


def item_codes(result: ScoreResult) -> Codes:
    """(C,) status of each candidate."""
    codes = np.full(len(result.candidates), SCORED, np.uint8)
    if result.lacks is not None:
        codes[result.lacks] = WITHOUT_CONTENT
    codes[result.cold] = COLD
    if not result.complete:
        codes[result.status == MISSING] = UNKNOWN
        codes[result.status == CORRUPT] = UNREADABLE
    return codes


def user_code(result: ScoreResult) -> int:
    """Status of the user."""
    if {"history", "user"} & set(result.degraded):
        return DEGRADED
    return COLD_USER if result.cold_user else KNOWN_USER
