"""The exact folds for inference: one small pure function per fold.

Everything here is float64 in, float64 out; the graphs round once, at the very end. Names follow the
paper (arXiv 2504.17699): t target vector (D,), s history item vector (D,), c context embedding,
x = [c | t | pool] (X,), A attention width, R rows of a quadratic layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]  # (outputs, inputs), as torch.nn.Linear keeps them
Vector = NDArray[np.float64]


def attention_keys(W_q: Matrix, W_k: Matrix) -> Matrix:
    """(A, D), (A, D) -> (D, D): ``k = M s`` with (W_q t)·(W_k s) / √A = t·k."""
    keys: Matrix = W_q.T @ W_k / np.sqrt(W_q.shape[0])
    return keys


def attention_values(W_o: Matrix, W_v: Matrix) -> Matrix:
    """(D, A), (A, D) -> (D, D): ``v = M s`` with W_o Σ a_j W_v s_j = Σ a_j v_j."""
    return W_o @ W_v


def rows(W: Matrix, b: Vector, width: int) -> tuple[Matrix, Vector]:
    """(R·X, X), (R·X,) -> (X, X), (X,): Σ_r h_r = W̄ x + b̄. Row r is outputs r·X … (r+1)·X−1."""
    return W.reshape(-1, width, W.shape[1]).sum(axis=0), b.reshape(-1, width).sum(axis=0)


class Normalised(NamedTuple):
    """``z = x ⊙ (weight·x + bias) + offset`` is the batch norm of ``x ⊙ (W̄ x + b̄)``."""

    weight: Matrix  # (X, X)
    bias: Vector  # (X,)
    offset: Vector  # (X,)


def batch_norm(
    W: Matrix,
    b: Vector,
    *,
    gamma: Vector,
    beta: Vector,
    mean: Vector,
    variance: Vector,
    epsilon: float,
) -> Normalised:
    """With g = γ/√(σ²+ε): x ⊙ (diag(g) W̄ x + g⊙b̄) + (β − g⊙μ)."""
    g = gamma / np.sqrt(variance + epsilon)
    return Normalised(g[:, None] * W, g * b, beta - g * mean)


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """A₀ x = Σ_f context_f·c_f + target·t + pooled·(pool − t), split by block of the input."""

    context: tuple[Matrix, ...]  # one (X, width) a context feature
    target: Matrix  # (X, D): A₀t + A₀p, because pool carries t as well
    pooled: Matrix  # (X, D): A₀p


def first_layer(A0: Matrix, context_widths: Sequence[int], vector_width: int) -> FirstLayer:
    """(X, X), the columns in the order [c | t | pool] -> the parts."""
    *context, target, pooled = np.split(A0, np.cumsum([*context_widths, vector_width]), axis=1)
    return FirstLayer(tuple(context), target + pooled, pooled)


def user_row(blocks: Sequence[Matrix]) -> Matrix:
    """One (X, width) a user or request feature -> (X, Σ width): ``M [u | r]``, A₀'s product with
    the user's and the request's part of c, is one row per request."""
    return np.concatenate(blocks, axis=1)


def standardised(P: Matrix, deviation: float) -> Vector:
    """(width, 1), σ -> (width,): ``(n − μ) w`` is P's projection of (n − μ) / σ."""
    weight: Vector = P[:, 0] / deviation
    return weight


def output_bias(pooled: Matrix, b_o: Vector, b: Vector) -> Vector:
    """(X, D), (D,), (X,) -> (X,): with pool = Σ a_j v_j + t + b_o, A₀p·b_o joins the bias."""
    return b + pooled @ b_o


def calibration(fc: Vector, bias: float, p: float, q: float) -> tuple[Vector, float]:
    """Platt scaling sigmoid(p·logit + q), where logit = fc·x + bias."""
    return fc * p, bias * p + q
