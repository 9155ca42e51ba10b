"""Reading a body of any JSON gives a request, or an error that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.body import Contents, parse_object
from service.api.embedding_input import read_input
from service.api.id_kind import NumericIds
from service.api.item_text import ItemTexts, _texts, _vectors
from service.api.score_reader import ScoreReader
from service.errors import ServiceError
from service.settings import Settings
from tests.service.small_schema import SMALL

TEXT = st.text(max_size=4) | st.sampled_from(["\ud800", "a\udfffb", "\u200b", "de", "image"])
NUMBER = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), 2**63, 0, -0.0])
LEAF = st.none() | st.booleans() | NUMBER | TEXT
NAMES = (
    *("input", "model", "encoding_format", "dimensions", "user", "truncate", "late_chunking"),
    *("user_id", "candidates", "history", "context", "features", "top_k", "explain", "name"),
    *("text", "vectors", "model_version", "ids_as_strings", "de", "image", "item_tags"),
)
VALUE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | TEXT, inner, max_size=5)
    ),
    max_leaves=12,
)
EMBEDDINGS = st.dictionaries(st.sampled_from(NAMES[:7]), VALUE, max_size=4)
ITEM = st.dictionaries(st.sampled_from(("text", "vectors", "features", "name")), VALUE, max_size=4)
SCORE = st.fixed_dictionaries(
    {"user_id": st.just(1) | VALUE, "candidates": st.lists(ITEM | VALUE, max_size=3) | VALUE},
    optional=dict.fromkeys(("context", "features", "history", "top_k", "model_version"), VALUE),
)
READER = ScoreReader(99, SMALL.stored_item, NumericIds(99), ItemTexts(None, SMALL, Settings()))


def texts_and_vectors(body: bytes) -> None:
    found = parse_object(body, Contents.of(10_000, 10_000))
    with suppress(ServiceError):
        _texts(found.get("text"))
    _vectors(found.get("vectors"), {"image": 2, "de": 1})


READERS: dict[str, tuple[Callable[[bytes], Any], Any]] = {
    "embeddings": (lambda body: read_input(body, 280), EMBEDDINGS | VALUE),
    "score": (READER.read, SCORE | VALUE),
    "item": (texts_and_vectors, ITEM | VALUE),
}


@pytest.mark.parametrize("route", READERS)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_only_errors_of_the_service_are_raised(route: str, data: st.DataObject) -> None:
    read, bodies = READERS[route]
    value = data.draw(bodies)
    for body in (json.dumps(value), json.dumps(value, indent=1)):
        error = error_of(read, body.encode())
        assert error is None or error.status in (400, 422)
        assert error is None or (error.faults and len(error.detail) < 1000)


def error_of(read: Callable[[bytes], Any], body: bytes) -> ServiceError | None:
    try:
        read(body)
    except ServiceError as error:
        return error
    return None
