"""Reads the body of ``POST /v1/embeddings``; errors are 4xx that name the field and the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.body import (
    TextContents,
    read_object,
    refuse_repeated,
    strings_in,
    validate_members,
)
from service.api.embedding_models import (
    MOST_CHARACTER,
    MOST_IDS,
    MOST_SPANS,
    MOST_TEXTS,
    EmbeddingsRequest,
)
from service.errors import InvalidField, Malformed

Ids = NDArray[np.int32]
Span = tuple[int, int]
KINDS = "a text, a list of texts, a list of token ids, or a list of such lists"
SPANS = "must be a list of spans [start, end] of characters"
# Beyond what is valid: of a little more, the field is named. Two quotation marks have each of seven
# names and three strings.
CONTENTS = TextContents.of(
    2 * (MOST_IDS + 2 * MOST_SPANS), 20, lists=2 * (MOST_TEXTS + MOST_SPANS), ids=2 * MOST_TEXTS
)


@dataclass(frozen=True, slots=True)
class EmbeddingInput:
    """A request whose texts are strings, or all token ids."""

    request: EmbeddingsRequest
    texts: list[str] | list[Ids]
    is_single: bool  # ``input`` is one text, not a list
    spans: list[list[Span]] | None  # of each text

    def field(self, text: int) -> tuple[str | int, ...]:
        """Name a text by its place in the request."""
        return ("input",) if self.is_single else ("input", text)

    def span_field(self, text: int, span: int) -> tuple[str | int, ...]:
        name = "late_chunking"
        return (name, span) if self.is_single else (name, text, span)


def read_input(body: bytes, vocabulary: int) -> EmbeddingInput:
    """Parse and check a body. Malformed or InvalidField."""
    try:
        members = read_object(body, CONTENTS)
    except Malformed:
        _name_surrogate(body)
        raise
    refuse_repeated(body, strings_in(members))
    request = validate_members(EmbeddingsRequest, members)
    given = request.input
    is_single = isinstance(given, str) or (isinstance(given, list) and _are(given, int))
    listed: Any = [given] if is_single else given
    if not isinstance(listed, list):
        raise InvalidField.of("input", detail=f"must be {KINDS}")
    if not listed or given == []:
        raise InvalidField.of("input", detail="an empty list: give at least one text")
    if len(listed) > MOST_TEXTS:
        raise InvalidField.of("input", detail=f"{len(listed):,} texts, at most {MOST_TEXTS:,}")
    texts = _texts(listed, is_single, vocabulary)
    spans = None
    if request.late_chunking is not None:
        spans = _spans(request.late_chunking, texts, is_single)
    return EmbeddingInput(request, texts, is_single, spans)


def _texts(listed: list[Any], is_single: bool, vocabulary: int) -> list[str] | list[Ids]:
    first = type(listed[0])
    for i, text in enumerate(listed):
        if type(text) is not first or first not in (str, list):
            where = ("input",) if is_single else ("input", i)
            raise InvalidField.of(*where, detail=f"of another type: input must be {KINDS}")
    if first is str:
        return listed
    if (count := sum(map(len, listed))) > MOST_IDS:
        raise InvalidField.of("input", detail=f"{count:,} token ids, at most {MOST_IDS:,}")
    flat = list(chain.from_iterable(listed))
    if not (all(listed) and _are(flat, int) and 0 <= min(flat) <= max(flat) < vocabulary):
        for i, ids in enumerate(listed):
            _refuse_ids(ids, ("input",) if is_single else ("input", i), vocabulary)
    return np.split(np.array(flat, np.int32), np.cumsum([len(ids) for ids in listed])[:-1])


def _refuse_ids(ids: list[Any], where: tuple[str | int, ...], vocabulary: int) -> None:
    """Raise InvalidField if these are no token ids; several lists are first checked together."""
    if not _are(ids, int):
        place = next((i for i, token in enumerate(ids) if type(token) is not int), None)
        if place is None:
            raise InvalidField.of(*where, detail="no tokens: an empty text has no vector")
        raise InvalidField.of(*where, place, detail="must be a token id, an integer")
    if min(ids) < 0 or max(ids) >= vocabulary:
        place = next(i for i, token in enumerate(ids) if not 0 <= token < vocabulary)
        detail = f"not a token id: they are 0 to {vocabulary - 1:,}"
        raise InvalidField.of(*where, place, detail=detail)


def _spans(given: Any, texts: Sequence[Any], is_single: bool) -> list[list[Span]]:
    name = "late_chunking"
    if not isinstance(texts[0], str):
        raise InvalidField.of(name, detail="spans are of characters: give texts, not token ids")
    if not isinstance(given, list):
        raise InvalidField.of(name, detail=f"{SPANS}, or a list of such lists")
    of_texts = [given] if is_single else given
    if len(of_texts) != len(texts):
        detail = f"{len(of_texts):,} lists of spans for {len(texts):,} texts"
        raise InvalidField.of(name, detail=detail)
    for i, spans in enumerate(of_texts):
        where = (name,) if is_single else (name, i)
        if not isinstance(spans, list) or not spans:
            raise InvalidField.of(*where, detail=f"{SPANS}, at least one")
        for k, span in enumerate(spans):
            if not (isinstance(span, list) and len(span) == 2 and _are(span, int)):
                raise InvalidField.of(*where, k, detail="must be [start, end], two integers")
            if not all(0 <= end <= MOST_CHARACTER for end in span):
                raise InvalidField.of(*where, k, detail="outside of the text")
    if (count := sum(map(len, of_texts))) > MOST_SPANS:
        raise InvalidField.of(name, detail=f"{count:,} spans, at most {MOST_SPANS:,}")
    return [[(start, end) for start, end in spans] for spans in of_texts]


def _are(values: list[Any], kind: type) -> bool:
    """Tell whether there are values, and all exactly of a type: True is no integer."""
    return set(map(type, values)) == {kind}


def _name_surrogate(body: bytes) -> None:
    """Raise InvalidField if a text has a lone surrogate, which is no JSON to the usual parser."""
    if b"\\u" not in body:
        return
    try:
        given = json.loads(body).get("input")
    except (ValueError, RecursionError, AttributeError):
        return
    listed = given if isinstance(given, list) else [given]
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = ("input",) if isinstance(given, str) else ("input", i)
            detail = f"not valid Unicode: a lone surrogate at character {error.start}"
            raise InvalidField.of(*where, detail=detail) from None
