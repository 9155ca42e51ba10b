"""Reads bodies of ``POST /v1/score`` with inline candidates; others never come here.

A body is read as one of ids alone. Only where that is refused it is looked whether some candidates
are objects.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from feature_store.schema import MAX_HISTORY, Stored
from model_export.bundle.vectors import Positions
from service.api.body import (
    TextContents,
    read_object,
    refuse_repeated,
    strings_in,
    validate_members,
)
from service.api.id_kind import IdKind
from service.api.inline_models import MOST_INLINE, InlineCandidate
from service.api.item_text import ItemTexts
from service.api.items import DIGITS_A_NUMBER, contents_of
from service.api.score_models import ScoreRequest
from service.errors import Fault, InvalidField
from service.scoring.inline_items import NamedTexts, numbered
from service.scoring.query import ScoreQuery

CANDIDATES = "candidates"


@dataclass(frozen=True, slots=True)
class InlineRequest:
    """A request, some of whose candidates are inline: I of them."""

    request: ScoreRequest  # with an id that means nothing in their places
    places: Positions  # (I,)
    inline: list[InlineCandidate]

    async def query(self, ids: IdKind) -> ScoreQuery:
        """Convert all but the inline candidates' records."""
        query = await ids.query(self.request)
        names = self._names()
        candidates = numbered(query.candidates, self.places)
        texts = NamedTexts(self.places, names, len(candidates), query.texts)
        return replace(query, candidates=candidates, texts=texts)

    def _names(self) -> list[str]:
        """Name each inline candidate. InvalidField for a name that another candidate has."""
        places = self.places.tolist()
        own = set(places)
        taken = {str(c) for i, c in enumerate(self.request.candidates) if i not in own}
        names = []
        for place, each in zip(places, self.inline, strict=True):
            name = f"{CANDIDATES}.{place}" if each.name is None else each.name
            if name in taken:
                detail = "another candidate of the request has this name or id"
                raise InvalidField.of(CANDIDATES, place, "name", detail=detail)
            taken.add(name)
            names.append(name)
        return names


class InlineReader:
    """Reads such bodies, within bounds."""

    def __init__(
        self, candidates: int, stored: Collection[Stored], ids: IdKind, texts: ItemTexts
    ) -> None:
        """``candidates``: the most of a request; ``stored``: the features of an item."""
        self._ids = ids
        item = texts.bounds(contents_of(stored))
        quotes = MOST_INLINE * (item.quotes + 16)
        self._contents = TextContents.of(
            candidates * (1 + len(stored)) + MAX_HISTORY + MOST_INLINE * item.values,
            512 + quotes,
            DIGITS_A_NUMBER,
            ids=1 + candidates + MAX_HISTORY,
        )

    def read(self, body: bytes) -> InlineRequest | None:
        """Parse and check a body; None if no candidate is inline. Malformed or InvalidField."""
        if b"{" not in body[1:]:
            return None
        members = read_object(body, self._contents)
        candidates = members.get(CANDIDATES)
        if not isinstance(candidates, list):
            return None
        places = [i for i, each in enumerate(candidates) if isinstance(each, dict)]
        if not places:
            return None
        refuse_repeated(body, strings_in(members))
        if len(places) > MOST_INLINE:
            detail = f"{len(places):,} inline candidates, at most {MOST_INLINE}"
            raise InvalidField.of(CANDIDATES, detail=detail)
        inline = [_candidate(place, candidates[place]) for place in places]
        for place in places:
            candidates[place] = self._nothing
        model = self._ids.request_with_text or self._ids.request
        request = validate_members(model, members)
        return InlineRequest(request, np.array(places, np.int64), inline)

    @property
    def _nothing(self) -> Any:
        return 0 if self._ids.kind == "numeric" else "-"


def _candidate(place: int, members: dict[str, Any]) -> InlineCandidate:
    try:
        return validate_members(InlineCandidate, members)
    except InvalidField as error:
        faults = [Fault.at((CANDIDATES, place, each.field), each.detail) for each in error.faults]
        named = f"{CANDIDATES}.{place}.{error.detail}"
        raise InvalidField(named, faults=faults) from None
