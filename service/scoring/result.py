"""The result of scoring as arrays, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import orjson

from feature_store.contract import CORRUPT, FOUND, MISSING, Ids
from model_export.bundle.top_k import best
from model_export.bundle.vectors import Floats, Mask
from service.items.fetcher import SomeStatus, Status, each_status
from service.scoring.explanation import Explanations
from service.scoring.id_texts import IdTexts

ID_LISTS = ("unknown_items", "unreadable_items", "cold_items", "unknown_history")
WITHOUT_CONTENT = "without_content"


@dataclass(frozen=True, slots=True, eq=False)
class ScoreResult:
    """Scores in the order of the candidates, and which items were missing, damaged or cold."""

    candidates: Ids  # (C,)
    scores: Floats  # (C,) probabilities; NaN where there is no readable record
    history: Ids  # (H,)
    # Not the items themselves: a result may outlive its version and its request.
    statuses: SomeStatus  # (H + C,)
    cold: Mask  # (C,)
    lacks: Mask | None = None  # (C,) without the content that the model wants, if it wants one
    history_lost: bool = False  # it could not be read: scored with an empty one
    explanations: Explanations | None = None  # where they were asked for
    user_lost: bool = False  # the user's record could not be read: scored without
    # User and request features without a known value; None for a model without such features.
    defaulted: tuple[str, ...] | None = None
    ignored: tuple[str, ...] = ()  # request features that the model does not have
    cold_count: int = field(init=False)
    lacking_count: int = field(init=False)
    complete: bool = field(init=False)  # every item was in the table: none is missing or damaged
    # No history was found or given; not that the store did not say, or that none of its items is
    # known (``unknown_history`` and ``degraded`` tell those).
    cold_user: bool = field(init=False)
    degraded: list[str] = field(init=False)  # what the answer had to do without, in part at least

    def __post_init__(self) -> None:
        complete, lost = self.statuses is None, self.history_lost
        fill = partial(object.__setattr__, self)  # frozen
        fill("cold_count", int(np.count_nonzero(self.cold)))
        fill("lacking_count", 0 if self.lacks is None else int(np.count_nonzero(self.lacks)))
        fill("complete", complete)
        fill("cold_user", len(self.history) == 0 and not lost)
        items = not complete and bool((self.status == CORRUPT).any())
        history = lost or (not complete and bool((self.history_status == CORRUPT).any()))
        fill("degraded", ["items"] * items + ["history"] * history + ["user"] * self.user_lost)

    @property
    def status(self) -> Status:
        """(C,)"""
        return self._everywhere()[len(self.history) :]

    @property
    def history_status(self) -> Status:
        """(H,)"""
        return self._everywhere()[: len(self.history)]

    def _everywhere(self) -> Status:
        return each_status(self.statuses, len(self.history) + len(self.candidates))

    def json(
        self,
        model_version: str,
        request_id: str,
        top_k: int | None,
        texts: IdTexts | None = None,
    ) -> bytes:
        """Write parallel arrays; a NaN is null. With ``texts`` ids are strings; a history item
        without a text is left out."""
        first = None if top_k is None else best(self.scores, top_k)
        chosen = slice(None) if first is None else first
        optional: dict[str, Any] = {}
        if self.defaulted is not None:
            optional["defaulted"] = self.defaulted
        if self.ignored:
            optional["ignored"] = self.ignored
        if self.lacks is not None:
            optional[WITHOUT_CONTENT] = _distinct(self.candidates[self.lacks])
        if self.explanations is not None:
            positions = np.arange(len(self.candidates))[chosen]
            optional["explanations"] = self.explanations.as_json(positions)
        unusual: dict[str, list[int]] = {} if self.complete else self._unusual()
        members: dict[str, Any] = {
            "model_version": model_version,
            "request_id": request_id,
            "item_ids": self.candidates[chosen],
            "scores": self.scores[chosen],
            "cold_user": self.cold_user,
            "unknown_items": unusual.get("unknown_items", []),
            "unreadable_items": unusual.get("unreadable_items", []),
            "cold_items": _distinct(self.candidates[self.cold]) if self.cold_count else [],
            "unknown_history": unusual.get("unknown_history", []),
            "degraded": self.degraded,
            **optional,
        }
        if texts is not None:
            for name in ID_LISTS if self.lacks is None else (*ID_LISTS, WITHOUT_CONTENT):
                members[name] = [text for text in texts.of(members[name]) if text is not None]
            members["item_ids"] = texts.candidates(self.candidates, first)
        return orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)

    def _unusual(self) -> dict[str, list[int]]:
        """Ids of the items that are missing or damaged."""
        status, past = self.status, self.history_status
        damaged = [self.candidates[status == CORRUPT], self.history[past == CORRUPT]]
        return {
            "unknown_items": _distinct(self.candidates[status == MISSING]),
            "unreadable_items": _distinct(np.concatenate(damaged)),
            "unknown_history": _distinct(self.history[past == MISSING]),
        }

    def count(self, status: int) -> int:
        """Candidates of this status."""
        if self.complete:
            return len(self.candidates) if status == FOUND else 0
        return int(np.count_nonzero(self.status == status))

    @property
    def history_dropped(self) -> int:
        return 0 if self.complete else int(np.count_nonzero(self.history_status))


def _distinct(ids: Ids) -> list[int]:
    """Each id once, in the order of its first occurrence."""
    return list(dict.fromkeys(ids.tolist()))
