import numpy as np
import pytest

from tests.training.worlds import SMALL, small_rows
from training.evaluation.evaluate import evaluate, share_of_the_possible
from training.evaluation.metrics import auc


def test_slices_cover_every_row_once_per_question() -> None:
    train, valid = small_rows(200, seed=1), small_rows(400, seed=2)
    scores = np.random.default_rng(3).random(400).astype(np.float32)
    figures = evaluate(scores, valid, train)
    rows = {part["slice"]: part["rows"] for part in figures["slices"]}
    assert sum(n for name, n in rows.items() if "item" in name) == 400
    assert sum(n for name, n in rows.items() if name.startswith("history")) == 400
    assert figures["auc"] == pytest.approx(auc(scores, valid.label))


def test_an_item_never_trained_on_is_cold_and_an_empty_history_is_a_slice() -> None:
    train, valid = small_rows(200, seed=1), small_rows(400, seed=2)
    train.target[train.target == 7] = 8
    figures = evaluate(np.zeros(400, np.float32), valid, train)
    rows = {part["slice"]: part["rows"] for part in figures["slices"]}
    assert rows["cold item"] == int((valid.target == 7).sum()) > 0
    assert rows["history 0"] == int((valid.history == 0).all(axis=1).sum()) > 0
    assert SMALL.history_length == 6
    assert rows["history 5–8"] == int((np.count_nonzero(valid.history, axis=1) >= 5).sum())


def test_a_figure_that_cannot_be_had_is_none_and_not_nan() -> None:
    train, valid = small_rows(50, seed=1), small_rows(50, seed=2)
    valid.label[:] = 0
    figures = evaluate(np.full(50, 0.5, np.float32), valid, train)
    assert figures["auc"] is None
    assert figures["grouped_auc"] is None


def test_chance_is_none_of_the_possible_and_the_best_is_all_of_it() -> None:
    assert share_of_the_possible(0.5, 0.9) == 0
    assert share_of_the_possible(0.9, 0.9) == 1
