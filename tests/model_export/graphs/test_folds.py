"""Each fold alone, in float64, against the formula as published."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from model_export.graphs import folds as fold

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


@given(D=sizes, A=sizes, L=sizes, seed=seeds)
def test_attention_keys_give_the_published_scores(D: int, A: int, L: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    W_q, W_k = random.normal(size=(2, A, D))
    t, history = random.normal(size=D), random.normal(size=(L, D))
    published = [relu((W_q @ t) @ (W_k @ s) / np.sqrt(A)) for s in history]
    keys = history @ fold.attention_keys(W_q, W_k).T
    assert_allclose(relu(keys @ t), published, **TOLERANCE)


@given(D=sizes, A=sizes, L=sizes, seed=seeds)
def test_attention_values_give_the_published_pool(D: int, A: int, L: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    W_o, W_v = random.normal(size=(D, A)), random.normal(size=(A, D))
    weights, history = relu(random.normal(size=L)), random.normal(size=(L, D))
    published = W_o @ sum(a * (W_v @ s) for a, s in zip(weights, history, strict=True))
    assert_allclose(weights @ (history @ fold.attention_values(W_o, W_v).T), published, **TOLERANCE)


@given(X=sizes, R=sizes, seed=seeds)
def test_rows_sum_in_row_major_order(X: int, R: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    W, b, x = random.normal(size=(R * X, X)), random.normal(size=R * X), random.normal(size=X)
    h = W @ x + b
    published = sum(h[r * X : (r + 1) * X] for r in range(R))
    folded, bias = fold.rows(W, b, X)
    assert_allclose(folded @ x + bias, published, **TOLERANCE)


@given(X=sizes, seed=seeds)
def test_batch_norm_of_the_quadratic_term(X: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    W, b, x = random.normal(size=(X, X)), random.normal(size=X), random.normal(size=X)
    gamma, beta, mean = random.normal(size=(3, X))
    variance, epsilon = random.uniform(0, 2, X), 1e-5
    z = x * (W @ x + b)
    published = gamma * (z - mean) / np.sqrt(variance + epsilon) + beta
    weight, bias, offset = fold.batch_norm(
        W, b, gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=epsilon
    )
    assert_allclose(x * (weight @ x + bias) + offset, published, **TOLERANCE)


@given(contexts=st.lists(sizes, max_size=4), D=sizes, L=st.integers(0, 6), seed=seeds)
def test_first_layer_split_by_input_block(contexts: list[int], D: int, L: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    X = sum(contexts) + 2 * D
    A0, t = random.normal(size=(X, X)), random.normal(size=D)
    c = [random.normal(size=width) for width in contexts]
    weights, values = relu(random.normal(size=L)), random.normal(size=(L, D))
    pool = weights @ values + t
    published = A0 @ np.concatenate([*c, t, pool])

    parts = fold.first_layer(A0, contexts, D)
    shares = sum((block @ level for block, level in zip(parts.context, c, strict=True)), 0.0)
    history_rows = values @ parts.pooled.T
    assert_allclose(shares + parts.target @ t + weights @ history_rows, published, **TOLERANCE)


@given(X=sizes, p=st.floats(0.01, 10), q=st.floats(-10, 10), seed=seeds)
def test_calibration_scales_and_shifts_the_logit(X: int, p: float, q: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    fc, x, bias = random.normal(size=X), random.normal(size=X), float(random.normal())
    scaled, shifted = fold.calibration(fc, bias, p, q)
    assert_allclose(scaled @ x + shifted, p * (fc @ x + bias) + q, **TOLERANCE)
