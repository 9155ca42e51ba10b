"""``rank_best``: ids, order and scores are those of a full float32 pass, at the price of int8."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from model_export.build import Int8, build
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.shortlist import NO_BOUND, quick_logits
from model_export.bundle.top_k import best
from model_export.bundle.vectors import ItemVectors, UserRow
from model_export.quality.random_network import random_network
from model_export.quality.random_rows import random_held_out
from service.scoring.ranking import Ranking, ScoringRun
from service.scoring.top_k import rank_best
from tests.model_export.answers import random_request
from tests.model_export.schemas import SMALL, SMALL_SIZES

Positions = NDArray[np.int64]


class Items:
    """The user's history, then the candidates: all of them in the table."""

    status = None

    def __init__(self, vectors: ItemVectors) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def gather(self, positions: Positions) -> ItemVectors:
        return self._vectors.take(positions)


class OneChunk(ScoringRun):
    """Runs a pass at once, uncut: int8 quantises a list by its own range."""

    def __init__(self) -> None:
        self.permit = None

    async def run(
        self, chunk: Callable[[int, int], None], rows: int, *, divisible: bool = False
    ) -> None:
        chunk(0, rows)


class Counters:
    """The two that are counted."""

    def __init__(self) -> None:
        self.rescored = self.top_k_bound = self

    def inc(self, by: int = 1) -> None: ...


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> FoldedModel:
    network = random_network(SMALL, SMALL_SIZES, seed=1)
    models = tmp_path_factory.mktemp("models")
    bundle = build(network, models, int8=Int8(random_held_out(network), force=True))
    return FoldedModel(bundle, precision="int8")


def same_as_a_full_pass(model: FoldedModel, items: ItemVectors, past: ItemVectors, k: int) -> int:
    """How many were scored in float32."""
    both = ItemVectors(
        *(np.concatenate(part) for part in zip(fields(past), fields(items), strict=True))
    )
    ranking = Ranking(cast(Any, Items(both)), len(past), [], model)
    ranking.read_history()
    asyncio.run(rank_best(ranking, k, OneChunk(), cast(Any, Counters())))
    exact = model.exact(items, model.history(past.vector))
    found, whole = best(ranking.scores, k), best(exact, k)
    assert_array_equal(found, whole)
    assert_array_equal(ranking.scores[found], exact[whole])
    return len(items) if ranking.scored is None else int(ranking.scored.sum())


def drawn(
    model: FoldedModel, *, length: int, count: int, seed: int = 0
) -> tuple[ItemVectors, ItemVectors]:
    """Random candidates in no context, and a random user's history."""
    request = random_request(model.schema, length=length, count=count, seed=seed)
    vectors = model.items(request.items)
    return vectors.take(request.candidates), vectors.take(request.history)


def fields(items: ItemVectors) -> tuple[NDArray[Any], ...]:
    return items.vector, items.row, items.context


@given(
    count=st.integers(1, 300),
    k=st.integers(1, 320),
    length=st.integers(0, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_lists(int8: FoldedModel, count: int, k: int, length: int, seed: int) -> None:
    request = random_request(int8.schema, length=length, count=count, seed=seed)
    vectors = int8.items(request.items)
    items = int8.in_context(vectors.take(request.candidates), request.context)
    same_as_a_full_pass(int8, items, vectors.take(request.history), k)


@example(
    k=18, nearness=0.0, outlier=100.0, past=1.0, seed=220
)  # int8 had the outlier's logit off by 3.7
@given(
    k=st.integers(1, 60),
    nearness=st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-3]),
    outlier=st.sampled_from([None, 3.0, 100.0]),
    past=st.sampled_from([1.0, 1.0, 10.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_lists_made_to_mislead(
    int8: FoldedModel, k: int, nearness: float, outlier: float | None, past: float, seed: int
) -> None:
    """Many near-ties and ties; a row so large that it takes the others' resolution away; and a
    history of large items."""
    random = np.random.default_rng(seed)
    request = random_request(int8.schema, length=6, count=4, seed=seed)
    vectors = int8.items(request.items)
    items = vectors.take(request.candidates[random.integers(0, 4, 64)])
    items = ItemVectors(
        items.vector,
        items.row + random.normal(0, nearness, items.row.shape).astype(np.float32),
        items.context,
    )
    if outlier is not None:
        items.row[random.integers(64)] *= outlier
    history = vectors.take(request.history)
    history.vector[0] *= past
    same_as_a_full_pass(int8, items, history, k)


def test_a_candidate_larger_than_those_of_the_gate_has_no_bound_and_does_not_change_others(
    int8: FoldedModel,
) -> None:
    items, past = drawn(int8, length=8, count=50, seed=3)
    history = int8.history(past.vector)
    usual = quick_logits(int8, items.part(0, 40), history)
    for field in (items.row, items.vector):
        field[40:] *= 1e3
    quick = quick_logits(int8, items, history)
    assert_array_equal(quick[:40], usual)
    assert_array_equal(quick[40:], NO_BOUND)


def test_a_history_or_a_user_larger_than_the_gates_leaves_no_candidate_a_bound(
    int8: FoldedModel,
) -> None:
    items, past = drawn(int8, length=8, count=50, seed=3)
    history = int8.history(past.vector)
    assert not (quick_logits(int8, items, history) == NO_BOUND).any()
    for name in ("keys", "values", "rows"):
        large = dataclasses.replace(history, **{name: 1e3 * getattr(history, name)})
        assert (quick_logits(int8, items, large) == NO_BOUND).all()
    user = UserRow(np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32))  # the gate had none
    assert (quick_logits(int8, items, history, user) == NO_BOUND).all()


def test_far_fewer_are_scored_twice_than_once(int8: FoldedModel) -> None:
    items, history = drawn(int8, length=8, count=300, seed=3)
    items.row[:] += np.random.default_rng(3).normal(0, 1, items.row.shape)
    assert same_as_a_full_pass(int8, items, history, 3) < 150


def test_without_int8_it_is_a_full_pass(tmp_path: Path) -> None:
    model = FoldedModel(build(random_network(SMALL, SMALL_SIZES, seed=1), tmp_path))
    request = random_request(model.schema, length=3, count=20)
    vectors = model.items(request.items)
    items = vectors.take(request.candidates)
    assert same_as_a_full_pass(model, items, vectors.take(np.arange(3)), 5) == 20


def test_a_bound_that_does_not_hold_means_a_full_pass(
    int8: FoldedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "logit_bound", 1e-9)  # as if the gate had seen no such lists
    items, history = drawn(int8, length=8, count=40, seed=5)
    assert same_as_a_full_pass(int8, items, history, 5) == 40
