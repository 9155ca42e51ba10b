"""The gate of another number format: both limits, each alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from text.export.gate import NEAREST, GateData, measure
from text.runtime.manifest import LEAST_OVERLAP, MOST_RHO_LOSS, Gate
from text.tokenizer import Tokens

TEXTS, PAIRS, WIDTH = 300, 200, 16
Vectors = NDArray[np.float32]


def units(count: int, seed: int) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tokens(first: int, count: int) -> Tokens:
    """Texts of one token, the number of its vector."""
    ids = np.arange(first, first + count, dtype=np.int32)
    return Tokens(ids, ids, np.arange(count + 1, dtype=np.int64))


ALL = units(TEXTS + 2 * PAIRS, 0)
NOISE = units(TEXTS + 2 * PAIRS, 1)
FIRST, SECOND = ALL[TEXTS : TEXTS + PAIRS], ALL[TEXTS + PAIRS :]
DATA = GateData(
    "corpus",
    tokens(0, TEXTS),
    tokens(TEXTS, PAIRS),
    tokens(TEXTS + PAIRS, PAIRS),
    (FIRST * SECOND).sum(1),
)


def gate(of_texts: float = 0.0, of_pairs: float = 0.0, forced: bool = False) -> Gate:
    """Measure vectors with so much noise."""
    share = np.repeat([of_texts, of_pairs], [TEXTS, 2 * PAIRS])[:, None]
    noisy = ALL + share * NOISE
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    exact, quick = (x.astype(np.float32) for x in (ALL, noisy))
    return measure(DATA, lambda t: exact[t.ids], lambda t: quick[t.ids], [], forced)


def test_the_limits_are_those_that_the_documents_name() -> None:
    assert (MOST_RHO_LOSS, LEAST_OVERLAP, NEAREST) == (0.005, 0.95, 10)


def test_equal_vectors_pass() -> None:
    found = gate()
    assert (found.passed, found.overlap, found.rho_loss) == (True, 1.0, 0.0)


@pytest.mark.parametrize(("noise", "passes"), [(0.02, True), (0.06, False), (0.5, False)])
def test_the_nearest_texts_agree_by_so_much(noise: float, passes: bool) -> None:
    found = gate(of_texts=noise)
    assert found.rho_loss == 0
    assert (found.overlap >= 0.95) == found.passed == passes
    assert 0 < found.max_abs_error < noise


@pytest.mark.parametrize(("noise", "passes"), [(0.03, True), (0.15, False), (0.5, False)])
def test_the_correlation_is_lower_by_so_little(noise: float, passes: bool) -> None:
    found = gate(of_pairs=noise)
    assert found.overlap == 1
    assert found.rho_float32 == pytest.approx(1)
    assert (found.rho_loss <= 0.005) == found.passed == passes


def test_a_gate_that_is_forced_says_so_and_one_that_passes_does_not() -> None:
    assert gate(of_texts=0.5, forced=True).forced
    assert not gate(forced=True).forced
