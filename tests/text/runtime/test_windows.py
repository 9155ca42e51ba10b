"""The bound on what a window leaves out, against softmax over all keys in float64."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.text.encoder.forward import head_slopes
from text.runtime.windows import SPARE, reach

Floats = NDArray[np.float64]


def omitted(logits: Floats, distance: NDArray[np.int64], window: int) -> float:
    """Share of softmax's weight on keys farther than ``window``."""
    weights = np.exp(logits - logits.max())
    return float(weights[distance > window].sum() / weights.sum())


@given(
    slope=st.sampled_from([m for heads in (3, 4, 12) for m in head_slopes(heads)]),
    length=st.integers(1, 3000),
    at=st.floats(0, 1, exclude_max=True),
    bound=st.floats(0, 40),
    shape=st.sampled_from(["random", "far", "alternating"]),
    spare=st.floats(0.1, SPARE),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_a_window_leaves_out_less_than_its_bound_in_any_text(
    slope: float, length: int, at: float, bound: float, shape: str, spare: float, seed: int
) -> None:
    distance = np.abs(np.arange(length) - int(at * length))
    window = reach(slope, bound, spare)
    products = {
        "random": np.random.default_rng(seed).uniform(-bound, bound, length),
        "far": np.where(distance > window, bound, -bound),  # the worst: all beyond is heavy
        "alternating": bound * (-1.0) ** distance,
    }[shape]
    assert omitted(products - slope * distance, distance, window) < math.exp(-spare)


def test_a_window_shorter_by_a_tenth_leaves_out_more() -> None:
    """So the bound is no looser than it need be: text lengths of thousands attain it nearly."""
    slope, bound = 2.0**-6, 5.0
    distance = np.abs(np.arange(8192) - 4096)
    shorter = int(0.9 * reach(slope, bound))
    products = np.where(distance > shorter, bound, -bound)
    assert omitted(products - slope * distance, distance, shorter) > math.exp(-SPARE)


def test_queries_and_keys_bound_their_products_less_what_all_keys_have_in_common() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(50, 16)), rng.normal(size=(400, 16)) + 30.0
    centred = k - k.mean(0)
    bound = np.linalg.norm(q, axis=1).max() * np.linalg.norm(centred, axis=1).max()
    assert np.abs(q @ centred.T).max() <= bound < np.abs(q @ k.T).max()
    window = reach(0.5, bound)
    for i, row in enumerate(q):
        distance = np.abs(np.arange(400) - i)
        assert omitted(k @ row - 0.5 * distance, distance, window) < 2.0**-24
