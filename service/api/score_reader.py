"""Reads bodies of ``POST /v1/score``, with inline candidates or without."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from pydantic import BaseModel

from feature_store.schema import MAX_HISTORY, Stored
from service.api.body import (
    Contents,
    TextContents,
    parse,
    read_object,
    refuse_repeated,
    strings_in,
    validate_members,
)
from service.api.id_kind import IdKind
from service.api.inline_models import MOST_INLINE, InlineCandidate
from service.api.inline_request import CANDIDATES, InlineRequest
from service.api.item_text import MOST_VECTORS, ItemTexts
from service.api.items import DIGITS_A_NUMBER, contents_of
from service.api.score_models import MOST_CONTEXT_FEATURES, ScoreRequest
from service.errors import Fault, InvalidField

# A valid body has two a name (nine of ours, 64 context and 64 request features), two for
# ``model_version`` and 64 more if that is all escapes.
MOST_QUOTES = 352
MOST_REQUEST_LISTS = MOST_CONTEXT_FEATURES + 8  # and objects, without those of candidates
INLINE_LISTS = 4 + MOST_VECTORS  # of a candidate, without those of its features
MOST_BRACES = 8  # that are looked at


class ScoreReader:
    """Counts what a body holds, then parses it once."""

    def __init__(
        self, candidates: int, stored: Collection[Stored], ids: IdKind, texts: ItemTexts
    ) -> None:
        """``candidates``: the most of a request; ``stored``: the features of an item."""
        self._most, self._features, self._ids, self._texts = candidates, len(stored), ids, texts
        self._item = contents_of(stored)
        self._contents = contents_of_score(candidates, self._features, ids.contents)

    def read(self, body: bytes) -> ScoreRequest | InlineRequest:
        """Parse and check a body. Malformed or InvalidField name the place."""
        if not _may_hold_inline(body):
            return parse(self._ids.request, body, self._contents, self._ids.request_with_text)
        members = read_object(body, self._inline_contents())
        candidates: Any = members.get(CANDIDATES)
        places = self._places(candidates) if isinstance(candidates, list) else []
        _refuse_more(ScoreRequest, members)
        inline = [_candidate(place, candidates[place]) for place in places]
        if places:
            ids = list(candidates)
            for place in places:
                ids[place] = self._nothing
            members[CANDIDATES] = ids
        model = self._ids.request_with_text or self._ids.request
        request = validate_members(model, members)
        refuse_repeated(body, strings_in(members | {CANDIDATES: candidates}))
        if not places:
            return request
        return InlineRequest(request, np.array(places, np.int64), inline)

    def _places(self, candidates: list[Any]) -> list[int]:
        """List where candidates are inline. InvalidField if there are too many of one kind."""
        if len(candidates) > self._most:
            detail = f"{len(candidates):,} candidates, at most {self._most:,}"
            raise InvalidField.of(CANDIDATES, detail=detail)
        places = [i for i, each in enumerate(candidates) if isinstance(each, dict)]
        if len(places) > MOST_INLINE:
            detail = f"{len(places):,} inline candidates, at most {MOST_INLINE}"
            raise InvalidField.of(CANDIDATES, detail=detail)
        return places

    def _inline_contents(self) -> Contents:
        item = self._texts.bounds(self._item)
        return TextContents.of(
            self._most * (1 + self._features) + MAX_HISTORY + MOST_INLINE * item.values,
            MOST_QUOTES + MOST_INLINE * (item.quotes + 16),
            DIGITS_A_NUMBER,
            lists=MOST_REQUEST_LISTS + MOST_INLINE * (INLINE_LISTS + self._features),
            ids=1 + self._most + MAX_HISTORY,
        )

    @property
    def _nothing(self) -> Any:
        return 0 if self._ids.kind == "numeric" else "-"


def contents_of_score(
    candidates: int, features: int, contents: type[Contents] = Contents
) -> Contents:
    """Bounds of a body without inline candidates, for so many candidates and context features."""
    ids = 1 + candidates + MAX_HISTORY
    return contents.of(candidates * (1 + features) + MAX_HISTORY, MOST_QUOTES, ids=ids)


def _may_hold_inline(body: bytes) -> bool:
    """Tell whether some list may hold an object: a brace after a comma or an opening bracket.

    Braces in strings may look like that. A valid body without has few braces.
    """
    at = body.find(b"{")  # the request's own
    for _ in range(MOST_BRACES):
        at = body.find(b"{", at + 1)
        if at < 0:
            return False
        before = body[at - 1 : at]
        if before.isspace():
            before = body[:at].rstrip()[-1:]
        if before in (b"[", b","):
            return True
    return True


def _candidate(place: int, members: dict[str, Any]) -> InlineCandidate:
    try:
        _refuse_more(InlineCandidate, members)
        return validate_members(InlineCandidate, members)
    except InvalidField as error:
        faults = [Fault.at((CANDIDATES, place, each.field), each.detail) for each in error.faults]
        named = f"{CANDIDATES}.{place}.{error.detail}"
        raise InvalidField(named, faults=faults) from None


def _refuse_more(model: type[BaseModel], members: dict[str, Any]) -> None:
    """Raise InvalidField if there are more members than fields, which thousands may be: validation
    would report each."""
    if len(members) > len(model.model_fields):
        unknown = next(name for name in members if name not in model.model_fields)
        raise InvalidField.of(unknown, detail="Extra inputs are not permitted")
