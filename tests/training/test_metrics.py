import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.evaluation.metrics import auc, grouped_auc, logloss, reliability

scores_and_labels = st.lists(
    st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60
).map(lambda rows: (np.array([s / 6 for s, _ in rows]), np.array([y for _, y in rows])))


def pairwise_auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """By definition: every positive against every negative."""
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[labels] for n in scores[~labels]
    ]
    return sum(wins) / len(wins) if wins else math.nan


@given(scores_and_labels)
def test_auc_counts_pairs_and_halves_ties(
    case: tuple[NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    scores, labels = case
    assert auc(scores, labels) == pytest.approx(pairwise_auc(scores, labels), nan_ok=True)


def test_auc_of_one_class_is_unknown() -> None:
    assert math.isnan(auc(np.array([0.1, 0.9]), np.array([True, True])))


def test_grouped_auc_weighs_users_by_rows_and_skips_those_with_one_class() -> None:
    users = np.array([7, 3, 7, 3, 3, 9])
    scores = np.array([0.9, 0.2, 0.1, 0.8, 0.3, 0.5])
    labels = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    value, counted = grouped_auc(scores, labels, users)
    assert counted == 2
    assert value == pytest.approx((1.0 * 2 + 0.0 * 3) / 5)


def test_logloss_matches_its_definition_and_survives_certainty() -> None:
    assert logloss(np.array([0.25, 0.75]), np.array([0.0, 1.0])) == pytest.approx(-math.log(0.75))
    assert math.isfinite(logloss(np.array([0.0, 1.0]), np.array([1.0, 0.0])))


def test_reliability_of_honest_probabilities_is_close_to_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    honest = reliability(p, (rng.random(p.size) < p).astype(np.float64), bins=20)
    assert honest.ece < 0.01
    assert honest.count.sum() == p.size
    overconfident = reliability(p, (rng.random(p.size) < 0.5).astype(np.float64))
    assert overconfident.ece == pytest.approx(0.25, abs=0.01)  # mean |p − ½|


def test_reliability_of_fewer_rows_than_bins_has_no_empty_bin() -> None:
    few = reliability(np.array([0.2, 0.4]), np.array([0.0, 1.0]), bins=20)
    assert few.count.tolist() == [1, 1]
