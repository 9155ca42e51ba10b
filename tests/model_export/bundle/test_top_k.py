"""Exact top-k at int8 price: ids, order and scores are those of a full float32 pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from model_export.build import Int8, build
from model_export.bundle.runtime import FoldedModel, HistoryRows, ItemVectors
from model_export.bundle.top_k import MARGIN, best, out_of_bound, shortlist
from model_export.quality.random_rows import random_held_out
from tests.model_export.answers import random_request
from training.qin import QIN

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def int8(network: QIN, tmp_path_factory: pytest.TempPathFactory) -> FoldedModel:
    models = tmp_path_factory.mktemp("models")
    bundle = build(network, models, int8=Int8(random_held_out(network), force=True))
    return FoldedModel(bundle, precision="int8")


def same_as_a_full_pass(
    model: FoldedModel, items: ItemVectors, history: HistoryRows, k: int
) -> int:
    """How many were scored in float32."""
    found, whole = model.top_k(items, history, k), best(model.exact(items, history), k)
    assert_array_equal(found.position, whole.position)
    assert_array_equal(found.probability, whole.probability)
    return found.rescored


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
    same_as_a_full_pass(int8, items, int8.history(vectors.vector[request.history]), k)


@given(
    k=st.integers(1, 60),
    nearness=st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-3]),
    outlier=st.sampled_from([None, 3.0, 100.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_lists_made_to_mislead(
    int8: FoldedModel, k: int, nearness: float, outlier: float | None, seed: int
) -> None:
    """Many near-ties and ties; and a row so large that it takes the others' resolution away."""
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
    same_as_a_full_pass(int8, items, int8.history(vectors.vector[request.history]), k)


def test_far_fewer_are_scored_twice_than_once(int8: FoldedModel) -> None:
    request = random_request(int8.schema, length=8, count=300, seed=3)
    random, vectors = np.random.default_rng(3), int8.items(request.items)
    items = vectors.take(request.candidates)
    items.row[:] += random.normal(0, 1, items.row.shape)
    history = int8.history(vectors.vector[request.history])
    assert same_as_a_full_pass(int8, items, history, 3) < 150


def test_without_int8_it_is_a_full_pass(model: FoldedModel) -> None:
    request = random_request(model.schema, length=3, count=20)
    vectors = model.items(request.items)
    items = vectors.take(request.candidates)
    assert same_as_a_full_pass(model, items, model.history(vectors.vector[:3]), 5) == 20


@given(
    exact=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=80),
    bound=st.sampled_from([0.0, 1e-3, 0.1, 2.0]),
    k=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_shortlist_holds_every_candidate_that_any_error_within_the_bound_allows(
    exact: list[float], bound: float, k: int, seed: int
) -> None:
    random, logit = np.random.default_rng(seed), np.array(exact, np.float32)
    worst = random.choice([-1.0, 1.0], len(logit)) * MARGIN * bound * (1 - 1e-6)
    quick = (logit.astype(np.float64) + worst).astype(np.float32)
    probability = (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)
    chosen = shortlist(quick, k, bound + 1e-5)  # float32 rounds the quick ones once more
    assert set(best(probability, k).position) <= set(chosen)
    assert (np.diff(chosen) > 0).all()


def test_an_error_beyond_the_bound_is_seen() -> None:
    exact = np.array([0.0, 1.0], np.float32)
    assert not out_of_bound(exact + np.float32(0.1), exact, 0.1)
    assert out_of_bound(exact + np.float32(0.2), exact, 0.1)
    assert out_of_bound(np.array([np.nan, 1.0], np.float32), exact, 0.1)


def test_a_bound_that_does_not_hold_means_a_full_pass(
    int8: FoldedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "logit_bound", 1e-9)  # as if the gate had seen no such lists
    request = random_request(int8.schema, length=8, count=40, seed=5)
    vectors = int8.items(request.items)
    items = vectors.take(request.candidates)
    history = int8.history(vectors.vector[request.history])
    assert same_as_a_full_pass(int8, items, history, 5) == 40


def test_the_best_of_equals_keep_their_order() -> None:
    probability = np.array([0.5, 0.7, 0.5, 0.9, 0.5, 0.7], np.float32)
    assert best(probability, 4).position.tolist() == [3, 1, 5, 0]
    assert best(probability, 9).position.tolist() == [3, 1, 5, 0, 2, 4]
