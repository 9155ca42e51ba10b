"""Given vectors are checked at once, as number by number, and candidates slice by slice."""

from __future__ import annotations

import asyncio
from time import thread_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.schema import Dense, FeatureSchema
from service.admission.loop_budget import LoopBudget
from service.api.inline_content import InlineContent
from service.api.inline_models import MOST_INLINE, InlineCandidate
from service.api.inline_request import InlineRequest
from service.api.item_text import ItemTexts, _vectors
from service.api.score_models import score_request
from service.context import RequestContext
from service.errors import InvalidField
from service.observability.metrics import Metrics
from service.scoring.query import ScoreQuery
from service.settings import Settings

LARGEST = float(np.finfo(np.float32).max)
EDGES = [LARGEST, -LARGEST, 2 * LARGEST, float("inf"), float("nan"), 10**400, -(2**128), 1e-46]
NUMBERS = st.one_of(st.floats(), st.integers(), st.sampled_from(EDGES))
ANYTHING = st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=2), st.just([1.0]))
LITTLE_S = 0.004  # of processor: 64 vectors of 512 numbers took 13 ms one by one


def one_by_one(vector: list[Any]) -> int | None:
    """Place of the first value that is no finite number of 32 bits."""
    for at, number in enumerate(vector):
        if type(number) not in (int, float) or not abs(number) <= LARGEST:
            return at
    return None


@given(st.lists(NUMBERS, min_size=1, max_size=9) | st.lists(ANYTHING, min_size=1, max_size=9))
def test_the_same_vectors_are_taken_and_the_same_number_is_named(vector: list[Any]) -> None:
    at = one_by_one(vector)
    if at is not None:
        with pytest.raises(InvalidField) as error:
            _vectors({"image": vector}, {"image": len(vector)})
        assert error.value.faults[0].field == f"vectors.image.{at}"
        return
    found = _vectors({"image": vector}, {"image": len(vector)})["image"]
    assert found.tolist() == [float(np.float32(float(number))) for number in vector]


def test_vectors_of_as_many_candidates_as_there_may_be_take_little_time() -> None:
    vectors = np.random.default_rng(0).normal(size=(MOST_INLINE, 512)).tolist()
    took = []
    for _ in range(5):
        began = thread_time()
        for vector in vectors:
            _vectors({"image": vector}, {"image": 512})
        took.append(thread_time() - began)
    assert min(took) < LITTLE_S


async def test_the_event_loop_runs_between_candidates() -> None:
    size = 4096  # numbers of a candidate: half a millisecond
    feature = Dense(kind="dense", name="content", size=size, width=8)
    schema = FeatureSchema(name="wide", history_length=4, item=(feature,))
    texts = ItemTexts(None, schema, Settings())
    budget = LoopBudget(Metrics(), lambda: 0.0)
    candidate = InlineCandidate(features={"content": [0.5] * size})
    request = score_request(99).model_validate({"user_id": 1, "candidates": [0] * MOST_INLINE})
    asked = InlineRequest(request, np.arange(MOST_INLINE), [candidate] * MOST_INLINE)
    query, ctx = ScoreQuery(1, np.arange(MOST_INLINE)), RequestContext("a", {})
    content, turns = InlineContent(None, None, schema, texts, budget), 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(others())
    await asyncio.sleep(0)
    turns = 0
    found = await content.with_records(asked, query, ctx, 1e12)
    beside.cancel()
    assert found.inline is not None
    assert len(found.inline.rows) == MOST_INLINE
    assert turns >= MOST_INLINE // 8
