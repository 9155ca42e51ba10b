"""The losses against their formulas written with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.encoder import forward
from text.encoder import objectives

SHAPES = {"k": st.integers(2, 9), "m": st.integers(1, 4), "width": st.integers(1, 12)}


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in shapes]


@settings(max_examples=60, deadline=None)
@given(**SHAPES, seed=st.integers(0, 2**31), temperature=st.sampled_from((0.05, 0.3, 1.0)))
def test_losses_are_the_formulas(k: int, m: int, width: int, seed: int, temperature: float) -> None:
    q, p, n = drawn(seed, (k, width), (k, width), (k, m, width))
    t = np.random.default_rng(seed).random(k)
    tq, tp, tn, tt = map(torch.from_numpy, (q, p, n, t))
    for given_loss, expected in (
        (objectives.pairs(tq, tp, temperature), forward.pairs(q, p, temperature)),
        (
            objectives.hard_negatives(tq, tp, tn, temperature),
            forward.hard_negatives(q, p, n, temperature),
        ),
        (
            objectives.squared_error(tq, tp, tt),
            np.mean((np.diag(forward.cosines(q, p)) - t) ** 2),
        ),
    ):
        assert abs(given_loss.item() - expected) <= 1e-10
    wanted = np.random.default_rng(seed).random((k, k))
    if width > 1:  # of one number, cosines are ±1 and may all be equal
        found = objectives.relations(tq, tp, torch.from_numpy(wanted)).item()
        expected = -np.corrcoef(forward.cosines(q, p).ravel(), wanted.ravel())[0, 1]
        assert abs(found - expected) <= 1e-10
        loss = objectives.correlation(tq, tp, tt).item()
        assert abs(loss - forward.correlation(q, p, t)) <= 1e-10


def test_the_correlation_of_equal_scores_is_refused() -> None:
    q, p = (torch.from_numpy(x) for x in drawn(1, (4, 3), (4, 3)))
    with pytest.raises(ValueError, match="equal scores"):
        objectives.correlation(q, p, torch.full((4,), 0.5))


def test_equal_cosines_give_a_finite_loss_and_gradient() -> None:
    q = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    loss = objectives.correlation(q, torch.ones(4, 3, dtype=torch.float64), torch.arange(4.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert q.grad is not None
    assert torch.isfinite(q.grad).all()


def test_matryoshka_is_the_mean_over_first_numbers() -> None:
    q, p = drawn(7, (5, 8), (5, 8))
    loss = objectives.matryoshka(
        objectives.pairs, (8, 4, 2), (torch.from_numpy(q), torch.from_numpy(p)), 0.05
    )
    expected = np.mean([forward.pairs(q[:, :w], p[:, :w], 0.05) for w in (8, 4, 2)])
    assert abs(loss.item() - expected) <= 1e-10
