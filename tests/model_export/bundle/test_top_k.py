"""``best``, ``shortlist`` and its error bound. ``rank_best`` is tested in tests/service/scoring."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_export.bundle.shortlist import MARGIN, NO_BOUND, out_of_bound, shortlist
from model_export.bundle.top_k import best


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
    assert set(best(probability, k)) <= set(chosen)
    assert (np.diff(chosen) > 0).all()


@given(
    exact=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=80),
    k=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
)
def test_candidates_without_a_bound_are_always_in_it_and_rule_out_no_other(
    exact: list[float], k: int, seed: int
) -> None:
    random, logit = np.random.default_rng(seed), np.array(exact, np.float32)
    quick = np.where(random.random(len(logit)) < 0.3, NO_BOUND, logit)
    probability = (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)
    chosen = shortlist(quick, k, 1e-5)
    assert set(best(probability, k)) | set(np.flatnonzero(quick == NO_BOUND)) <= set(chosen)
    assert not out_of_bound(quick, logit, 1e-5)


def test_an_error_beyond_the_bound_is_seen() -> None:
    exact = np.array([0.0, 1.0], np.float32)
    assert not out_of_bound(exact + np.float32(0.1), exact, 0.1)
    assert out_of_bound(exact + np.float32(0.2), exact, 0.1)
    assert out_of_bound(np.array([np.nan, 1.0], np.float32), exact, 0.1)


def test_the_best_of_equals_keep_their_order() -> None:
    probability = np.array([0.5, 0.7, 0.5, 0.9, 0.5, 0.7], np.float32)
    assert best(probability, 4).tolist() == [3, 1, 5, 0]
    assert best(probability, 9).tolist() == [3, 1, 5, 0, 2, 4]


def test_nan_is_not_among_the_best() -> None:
    scores = np.array([np.nan, 0.2, 0.9, np.nan, 0.2], np.float32)
    assert best(scores, 1).tolist() == [2]
    assert best(scores, 2).tolist() == [2, 1]
    assert best(scores, 5).tolist() == [2, 1, 4]
    assert best(np.full(3, np.nan, np.float32), 2).tolist() == []


@given(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.3, float("nan")]), min_size=1, max_size=40),
    k=st.integers(1, 50),
)
def test_the_best_are_the_head_of_a_stable_sort(scores: list[float], k: int) -> None:
    ranked = sorted((-score, at) for at, score in enumerate(scores) if score == score)
    assert best(np.array(scores, np.float32), k).tolist() == [at for _, at in ranked][:k]
