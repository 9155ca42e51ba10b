"""Makes the records of inline candidates: their features, and content from their texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.contents import GIVEN, Contents
from feature_store.contract import ItemRows
from feature_store.feature_values import FeatureValueError, item_row, set_values
from feature_store.schema import FeatureSchema
from service.admission.loop_budget import LoopBudget
from service.api.inline_models import InlineCandidate
from service.api.inline_request import CANDIDATES, InlineRequest
from service.api.item_text import TEXT, VECTORS, ItemTexts, ItemWords
from service.context import RequestContext
from service.errors import Fault, InvalidField, ModelFault
from service.scoring.inline_items import InlineItems
from service.scoring.query import ScoreQuery
from service.server.disconnect import CancelOnDisconnect

if TYPE_CHECKING:
    from service.encoding.encoding import TextEncoding  # takes an extra
    from text.runtime.encoder import TextEncoder

Words = dict[int, ItemWords]  # by place in ``inline``
FEATURES = "features"
SLICE_S = 0.001  # of the event loop at a time, but for one candidate that takes longer


class InlineContent:
    """Makes records as writes of items do."""

    def __init__(
        self,
        encoding: TextEncoding | None,
        encoder: TextEncoder | None,
        schema: FeatureSchema,
        texts: ItemTexts,
        budget: LoopBudget,
    ) -> None:
        """``encoder``: that of the version which answers; ``schema`` is the store's."""
        self._encoding, self._encoder = encoding, encoder
        self._schema, self._texts, self._budget = schema, texts, budget

    async def with_records(
        self, asked: InlineRequest, query: ScoreQuery, ctx: RequestContext, deadline: float
    ) -> ScoreQuery:
        """Return the query with its inline items. Features are checked before a text is encoded.

        InvalidField, OverCapacity, DeadlinePassed.
        """
        rows, words, began = list[ItemRows](), Words(), perf_counter()
        for i, (place, each) in enumerate(zip(asked.places.tolist(), asked.inline, strict=True)):
            if perf_counter() - began > SLICE_S:
                await self._budget.one_at_a_time()
                began = perf_counter()
            with _within(place):
                row, own = self._row(each)
            rows.append(row)
            if own is not None:
                words[i] = own
        records = np.concatenate(rows)
        contents = None
        if words:
            contents = await self._fill(records, words, asked, ctx, deadline)
            ctx.timer.lap("items")
        return replace(query, inline=InlineItems(asked.places, records, contents))

    def _row(self, given: InlineCandidate) -> tuple[ItemRows, ItemWords | None]:
        """Make a record (1,), in which the feature of texts is 0."""
        values: dict[str, Any] = dict(given.features)
        asked = {TEXT: given.text, VECTORS: given.vectors}
        both = values | {name: value for name, value in asked.items() if value is not None}
        words = self._texts.take(both, lambda: self._encoder, FEATURES)
        with _in_features():
            if words is not None:
                values[words.feature.name] = [0.0] * words.feature.size
            if self._schema.identity is not None:
                values.setdefault(self._schema.identity, 0)
            return item_row(self._schema, values), words

    async def _fill(
        self,
        records: ItemRows,
        words: Words,
        asked: InlineRequest,
        ctx: RequestContext,
        deadline: float,
    ) -> Contents:
        """Encode the texts and write the content of each item. Returns their origins."""
        from service.encoding.item_content import origin_of
        from service.encoding.item_contents import in_order, item_contents
        from text.runtime.encoder import NOT_FINITE
        from text.runtime.errors import TextError, TextTooLong

        encoding, encoder = self._encoding, self._encoder
        assert encoding is not None, "texts were taken"
        assert encoder is not None
        places = [int(asked.places[i]) for i in words]
        texts = [each.texts for each in words.values()]
        order = in_order(texts)
        own = [texts[item][language] for item, language in order]
        permit = encoding.enter(own, ctx.priority, deadline, encoder=encoder) if own else None
        items = [(each.texts, each.vectors) for each in words.values()]
        try:
            if permit is None:
                found = await item_contents(encoding, encoder, items, None, deadline)
            else:
                with permit, CancelOnDisconnect(ctx.connection, permit.defer):
                    found = await item_contents(encoding, encoder, items, permit, deadline)
        except TextError as error:
            item, language = order[error.index]
            where = (CANDIDATES, places[item], TEXT, language)
            if error.fault == NOT_FINITE:
                raise ModelFault(f"{'.'.join(map(str, where))}: {error.fault}") from error
            fault = error.brief if isinstance(error, TextTooLong) else error.fault
            raise InvalidField.of(*where, detail=fault) from None
        for i, place, content in zip(words, places, found, strict=True):
            with _within(place):
                words[i].check(content)
            values = {words[i].feature.name: content.tolist()}
            set_values(self._schema.stored_item, records[i : i + 1], values)
        origin = origin_of(encoder)
        assert origin is not None
        origins = np.full(len(records), GIVEN, np.uint64)
        origins[list(words)] = origin.number
        return Contents.of(origin.feature, origins, records.dtype)


@contextmanager
def _within(place: int) -> Iterator[None]:
    """Name faults by the candidate that they are in."""
    try:
        yield
    except InvalidField as error:
        faults = [Fault.at((CANDIDATES, place, each.field), each.detail) for each in error.faults]
        named = f"{CANDIDATES}.{place}.{error.detail}"
        raise InvalidField(named, faults=faults) from None


@contextmanager
def _in_features() -> Iterator[None]:
    try:
        yield
    except FeatureValueError as error:
        raise InvalidField.of(FEATURES, *error.place, detail=error.reason) from None
