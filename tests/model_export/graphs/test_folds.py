"""Each fold alone, in float64, against the formula as published."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from model_export.graphs import folds as fold
from training.qin import Standardised, TargetAttention

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


@given(widths=st.lists(sizes, min_size=1, max_size=4), D=sizes, seed=seeds)
def test_the_user_and_the_request_are_one_row(widths: list[int], D: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    X = sum(widths) + 2 * D
    A0 = random.normal(size=(X, X))
    parts = [random.normal(size=width) for width in widths]
    published = A0 @ np.concatenate([*parts, np.zeros(2 * D)])
    row = fold.user_row(fold.first_layer(A0, widths, D).context)
    assert_allclose(row @ np.concatenate(parts), published, **TOLERANCE)


@given(width=sizes, mean=st.floats(-1e3, 1e3), deviation=st.floats(0.01, 1e3), seed=seeds)
def test_a_number_is_standardised_as_the_network_does(
    width: int, mean: float, deviation: float, seed: int
) -> None:
    module = Standardised(width).double()
    module.mean.fill_(mean)
    module.deviation.fill_(deviation)
    value = np.random.default_rng(seed).normal(mean, deviation, 5)
    published = module(torch.from_numpy(value)).detach().numpy()
    weight = fold.standardised(module.projection.weight.detach().numpy(), float(module.deviation))
    assert_allclose((value - float(module.mean))[:, None] * weight, published, **TOLERANCE)


@given(D=sizes, A=sizes, L=st.integers(1, 6), seed=seeds)
def test_the_bias_of_the_output_joins_the_first_layers(D: int, A: int, L: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    attention = TargetAttention(D, A, output_bias=True).double()
    b_o = random.normal(size=D)
    attention.W_o.bias.data[:] = torch.from_numpy(b_o)
    items, bias, X = random.normal(size=(L + 1, D)), random.normal(size=2 * D), 2 * D
    vectors = torch.from_numpy(items)
    pool = attention(vectors[:1], vectors, torch.arange(1, L + 1)[None]).detach().numpy()[0]
    A0 = random.normal(size=(X, X))
    published = A0 @ np.concatenate([items[0], pool]) + bias

    W = {name: getattr(attention, f"W_{name}").weight.detach().numpy() for name in "qkvo"}
    weight = relu(items[1:] @ fold.attention_keys(W["q"], W["k"]).T @ items[0])
    values = items[1:] @ fold.attention_values(W["o"], W["v"]).T
    parts = fold.first_layer(A0, [], D)
    folded = parts.target @ items[0] + parts.pooled @ (weight @ values)
    assert_allclose(folded + fold.output_bias(parts.pooled, b_o, bias), published, **TOLERANCE)
    assert_allclose(weight @ values + items[0] + b_o, pool, **TOLERANCE)


@given(X=sizes, p=st.floats(0.01, 10), q=st.floats(-10, 10), seed=seeds)
def test_calibration_scales_and_shifts_the_logit(X: int, p: float, q: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    fc, x, bias = random.normal(size=X), random.normal(size=X), float(random.normal())
    scaled, shifted = fold.calibration(fc, bias, p, q)
    assert_allclose(scaled @ x + shifted, p * (fc @ x + bias) + q, **TOLERANCE)
