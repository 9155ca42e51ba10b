"""The kind of a store's ids, decided once at start: from a request's ids to the store's numbers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, cast

import numpy as np

from feature_store.contract import Ids
from feature_store.text_ids import TextIds
from service.api.body import Contents, TextContents
from service.api.score_models import (
    ANSWER_EXAMPLE,
    MAPPED_ANSWER_EXAMPLE,
    MAPPED_EXAMPLES,
    REQUEST_EXAMPLES,
    ScoreAnswer,
    ScoreRequest,
    mapped_score_answer,
    mapped_score_request,
    score_request,
    score_request_with_text,
)
from service.items.item_texts import ItemTexts
from service.scoring.id_texts import DecimalTexts, IdTexts, StoredTexts
from service.scoring.query import ScoreQuery
from service.state import ServiceState

DECIMAL = DecimalTexts()
SLICE = 1024  # texts numbered at a time: under a millisecond


class NumericIds:
    """Ids that are numbers, which requests may give in decimal strings."""

    kind: Literal["numeric", "mapped"] = "numeric"
    contents: type[Contents] = Contents
    answer: type[ScoreAnswer] = ScoreAnswer
    request_examples, answer_example = REQUEST_EXAMPLES, ANSWER_EXAMPLE

    def __init__(self, max_candidates: int) -> None:
        self.request = score_request(max_candidates)
        self.request_with_text: type[ScoreRequest] | None = score_request_with_text(max_candidates)

    async def query(self, asked: ScoreRequest) -> ScoreQuery:
        history = None if asked.history is None else np.array(asked.history[::-1], np.int64)
        candidates = np.array(asked.candidates, np.int64)
        texts = DECIMAL if asked.ids_as_strings else None
        return _query(asked, asked.user_id, candidates, history, texts)


class MappedIds:
    """Ids that are texts, which the store numbers."""

    kind: Literal["numeric", "mapped"] = "mapped"
    contents: type[Contents] = TextContents
    request_with_text: type[ScoreRequest] | None = None
    request_examples, answer_example = MAPPED_EXAMPLES, MAPPED_ANSWER_EXAMPLE

    def __init__(
        self,
        max_candidates: int,
        text_ids: TextIds,
        texts: ItemTexts,
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        """``turn`` is awaited between slices of long lists."""
        self.request = mapped_score_request(max_candidates)
        self.answer: type[ScoreAnswer] = mapped_score_answer()
        self._text_ids, self._texts, self._turn = text_ids, texts, turn

    async def query(self, asked: ScoreRequest) -> ScoreQuery:
        user, items = cast(str, asked.user_id), cast(list[str], asked.candidates)
        candidates, past = await self.numbers(items), None
        given = dict(zip(candidates.tolist(), items, strict=True))
        if asked.history is not None:
            history = cast(list[str], asked.history)
            past = (await self.numbers(history))[::-1]
            given |= zip(past.tolist(), history[::-1], strict=True)
        texts = StoredTexts(given, self._texts)
        return _query(asked, self._text_ids.number(user), candidates, past, texts, user)

    async def numbers(self, texts: Sequence[str]) -> Ids:
        """(N,) numbers of N texts."""
        if len(texts) <= SLICE:
            return self._text_ids.numbers(texts)
        parts = []
        for start in range(0, len(texts), SLICE):
            await self._turn()
            parts.append(self._text_ids.numbers(texts[start : start + SLICE]))
        return np.concatenate(parts)


IdKind = NumericIds | MappedIds


def id_kind(state: ServiceState) -> IdKind:
    """Return the kind of the ids of the service's store."""
    most, text_ids = state.settings.max_candidates, state.store.text_ids
    if text_ids is None:
        return NumericIds(most)
    return MappedIds(most, text_ids, state.item_texts, state.budget.one_at_a_time)


def _query(
    asked: ScoreRequest,
    user_id: int,
    candidates: Ids,
    history: Ids | None,
    texts: IdTexts | None,
    user_text: str | None = None,
) -> ScoreQuery:
    context: dict[str, Any] = {name: np.array(v, np.int32) for name, v in asked.context.items()}
    return ScoreQuery(
        user_id, candidates, history, context, asked.top_k, asked.explain, texts, user_text
    )
