"""Moments solve what rows do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from text.content.moments import FOLDS, PENALTIES, Components, Moments, ridge

ROWS, X, Y = 900, 7, 3
Floats = NDArray[np.float64]


@pytest.fixture
def rows() -> tuple[Floats, Floats]:
    random = np.random.default_rng(0)
    x = random.normal(4, 1, (ROWS, X)) @ random.normal(size=(X, X))
    y = x @ random.normal(size=(X, Y)) + 10 + random.normal(size=(ROWS, Y))
    return x, y


def gram(x: Floats, y: Floats) -> Floats:
    z = np.hstack([np.ones((len(x), 1)), x, y])
    product: Floats = z.T @ z
    return product


def solved(x: Floats, y: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Ridge by rows: the square root of the penalty times the unit matrix as further rows."""
    centred, targets = x - x.mean(0), y - y.mean(0)
    unit = centred.var(0).mean() * len(x)
    more = np.vstack([centred, np.sqrt(penalty * unit) * np.eye(X)])
    weight = np.linalg.lstsq(more, np.vstack([targets, np.zeros((X, Y))]), rcond=None)[0]
    return weight, y.mean(0) - x.mean(0) @ weight


def test_a_regression_is_that_of_the_rows(rows: tuple[Floats, Floats]) -> None:
    x, y = rows
    found = Moments(gram(x, y), X).solved(PENALTIES)
    for penalty, (weight, bias) in zip(PENALTIES, found, strict=True):
        expected = solved(x, y, penalty)
        assert np.allclose(weight, expected[0], rtol=0, atol=1e-9)
        assert np.allclose(bias, expected[1], rtol=0, atol=1e-8)


def test_r2_is_of_rows_that_neither_penalty_nor_weights_have_seen(
    rows: tuple[Floats, Floats],
) -> None:
    x, y = rows
    group = np.arange(ROWS) % (FOLDS + 1)
    y[group == FOLDS] += np.random.default_rng(1).normal(0, 30, (ROWS // (FOLDS + 1), Y))
    folds = np.stack([gram(x[group == g], y[group == g]) for g in range(FOLDS + 1)])
    found = ridge(folds, X)
    seen, held = group < FOLDS, group == FOLDS
    weight, bias = solved(x[seen], y[seen], found.penalty)
    squares = np.square(y[held] - x[held] @ weight - bias).sum()
    expected = 1 - squares / np.square(y[held] - y[seen].mean(0)).sum()
    assert found.r2 == pytest.approx(expected, abs=1e-9)
    assert np.allclose(found.weight, solved(x, y, found.penalty)[0], atol=1e-8)


def test_noise_gets_a_large_penalty(rows: tuple[Floats, Floats]) -> None:
    x, _ = rows
    noise = np.random.default_rng(2).normal(size=(ROWS, Y))
    group = np.arange(ROWS) % (FOLDS + 1)
    folds = np.stack([gram(x[group == g], noise[group == g]) for g in range(FOLDS + 1)])
    found = ridge(folds, X)
    assert found.penalty >= 1
    assert found.r2 < 0.05


def test_principal_components_are_those_of_the_rows(rows: tuple[Floats, Floats]) -> None:
    x, y = rows
    found = Components.of(Moments(gram(x, y), X), 4)
    scores = x @ found.weight + found.bias
    _, singular, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    expected = (x - x.mean(0)) @ axes[:4].T
    assert np.allclose(np.abs(np.corrcoef(scores.T, expected.T)[:4, 4:]), np.eye(4), atol=1e-6)
    assert np.allclose(scores.mean(0), 0, atol=1e-9)
    assert scores.var(0).mean() == pytest.approx(1)  # one factor: the order of axes stays
    assert np.allclose(scores.std(0) / scores.std(0)[0], singular[:4] / singular[0])
    share = np.square(singular[:4]).sum() / np.square(singular).sum()
    assert found.explained == pytest.approx(share)


def test_more_components_than_directions_are_refused(rows: tuple[Floats, Floats]) -> None:
    x = np.hstack([rows[0][:, :3], rows[0][:, :1] + rows[0][:, 1:2]])
    with pytest.raises(ValueError, match="vary in 3 directions, and 4"):
        Components.of(Moments(gram(x, rows[1]), 4), 4)
