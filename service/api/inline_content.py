"""Makes the records of inline candidates: their features, and content from their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.contract import ItemRows
from feature_store.feature_values import FeatureValueError, item_row, set_values
from feature_store.schema import Dense, FeatureSchema
from service.api.inline_models import InlineCandidate
from service.api.inline_request import CANDIDATES, InlineRequest
from service.context import RequestContext
from service.errors import InvalidField
from service.models.loaded_model import LoadedModel
from service.scoring.inline_items import InlineItems
from service.scoring.query import ScoreQuery
from service.server.disconnect import CancelOnDisconnect

if TYPE_CHECKING:
    from service.encoding.encoding import TextEncoding  # takes an extra
    from service.encoding.inline_content import ItemContents

NO_ENCODER = "this service has no encoder (QIN_ENCODER); give every feature instead"


async def with_records(
    asked: InlineRequest,
    query: ScoreQuery,
    version: LoadedModel,
    schema: FeatureSchema,
    encoding: TextEncoding | None,
    ctx: RequestContext,
    deadline: float,
) -> ScoreQuery:
    """Return the query with its inline items. ``schema`` is the store's.

    Features are checked before any text is encoded. InvalidField, OverCapacity, DeadlinePassed.
    """
    contents = _contents(asked, version, encoding)
    feature = None if contents is None else contents.feature
    rows = np.concatenate(
        [
            _row(schema, place, each, feature)
            for place, each in zip(asked.places.tolist(), asked.inline, strict=True)
        ]
    )
    if contents is not None:
        assert encoding is not None
        await _fill(rows, asked, contents, encoding, schema, ctx, deadline)
        ctx.timer.lap("items")
    return replace(query, inline=InlineItems(asked.places, rows))


def _contents(
    asked: InlineRequest, version: LoadedModel, encoding: TextEncoding | None
) -> ItemContents | None:
    """Return what makes content of the texts; None if there are none. InvalidField."""
    first = next((i for i, each in enumerate(asked.inline) if each.text), None)
    if first is None:
        return None
    where = (CANDIDATES, int(asked.places[first]), "text")
    if encoding is None:
        raise InvalidField.of(*where, detail=NO_ENCODER)
    from service.encoding.inline_content import ItemContents

    contents = ItemContents.of(encoding.encoder)
    if contents is None:
        raise InvalidField.of(*where, detail="the encoder has no map to content")
    found = next((f for f in version.schema.item if f.name == contents.feature), None)
    if not isinstance(found, Dense) or found.size != contents.size:
        detail = f"version {version.name} has no feature {contents.feature} of {contents.size}"
        raise InvalidField.of(*where, detail=f"{detail} numbers, which the encoder gives")
    return contents


def _row(
    schema: FeatureSchema, place: int, given: InlineCandidate, feature: str | None
) -> ItemRows:
    """Make a record (1,); ``feature``, which texts make, is 0."""
    values: dict[str, Any] = dict(given.features)
    if schema.identity is not None:
        values.setdefault(schema.identity, 0)
    if given.text and feature is not None:
        if feature in values:
            detail = "given twice: `text` makes it, too; leave one of them out"
            raise InvalidField.of(CANDIDATES, place, "features", feature, detail=detail)
        size = next(f.size for f in schema.item if f.name == feature and isinstance(f, Dense))
        values[feature] = [0.0] * size
    with _naming(place):
        return item_row(schema, values)


async def _fill(
    rows: ItemRows,
    asked: InlineRequest,
    contents: ItemContents,
    encoding: TextEncoding,
    schema: FeatureSchema,
    ctx: RequestContext,
    deadline: float,
) -> None:
    """Encode the texts and write the content of each item."""
    chosen = [i for i, each in enumerate(asked.inline) if each.text]
    texts = [asked.inline[i].text for i in chosen]
    permit = encoding.enter(contents.flat(texts), ctx.priority, deadline)

    def where(item: int, language: str) -> Sequence[str | int]:
        return (CANDIDATES, int(asked.places[chosen[item]]), "text", language)

    with permit, CancelOnDisconnect(ctx.connection, permit.defer):
        found = await contents.encode(encoding, texts, permit, deadline, where)
    for i, content in zip(chosen, found, strict=True):
        values = {contents.feature: content.tolist()}
        with _naming(int(asked.places[i])):
            set_values(schema.stored_item, rows[i : i + 1], values)


@contextmanager
def _naming(place: int) -> Iterator[None]:
    try:
        yield
    except FeatureValueError as error:
        where = (CANDIDATES, place, "features", *error.place)
        raise InvalidField.of(*where, detail=error.reason) from None
