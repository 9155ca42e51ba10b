"""Kendall rank correlation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_export.bundle.rank_correlation import kendall_tau

scores = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]), min_size=2, max_size=12)


@given(st.data(), scores)
def test_kendall_tau_is_what_counting_pairs_gives(data: st.DataObject, a: list[float]) -> None:
    b = data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.7]), min_size=len(a), max_size=len(a)))
    pairs = list(itertools.combinations(range(len(a)), 2))
    x = [np.sign(a[i] - a[j]) for i, j in pairs]
    y = [np.sign(b[i] - b[j]) for i, j in pairs]
    scale = np.sqrt(sum(map(abs, x)) * sum(map(abs, y)))
    expected = sum(p * q for p, q in zip(x, y, strict=True)) / scale if scale else 1.0
    found = kendall_tau(np.array(a, np.float32), np.array(b, np.float32))
    assert found == pytest.approx(expected)
