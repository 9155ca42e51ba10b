"""Percentiles are samples, not inventions; intervals cover what they claim to cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from loadtest.analysis.queueing import md1_response, md1_waiting, queue_response
from loadtest.analysis.statistics import block_bootstrap, percentile, percentiles

SAMPLES = arrays.arrays(
    np.float64, st.integers(1, 300), elements=st.floats(0, 100, allow_nan=False)
)


@given(SAMPLES, st.floats(0.001, 0.999))
def test_a_percentile_is_the_smallest_sample_with_its_share_at_or_below(
    samples: np.ndarray, q: float
) -> None:
    value = percentile(samples, q)
    assert value in samples
    assert np.mean(samples <= value) >= q - 1e-9
    assert np.mean(samples < value) < q


@given(SAMPLES)
def test_percentiles_never_fall(samples: np.ndarray) -> None:
    values = percentiles(samples)
    known = [values[name] for name in ("p50", "p90", "p95", "p99") if values[name] is not None]
    assert known == sorted(known)
    assert known[-1] <= values["max"]  # type: ignore[operator]


def test_p999_is_refused_below_4603_samples() -> None:
    assert percentiles(np.ones(4602))["p99.9"] is None
    assert percentiles(np.ones(4603))["p99.9"] == 1000.0
    assert percentiles(np.full(10, np.nan))["p50"] is None


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_covers_the_truth_also_when_samples_lean_on_each_other(
    correlation: float,
) -> None:
    """AR(1) noise: independent resampling would cover far less at 0.9."""
    rng = np.random.default_rng(1)
    covered = 0
    for repeat in range(60):
        noise = rng.normal(size=4000)
        for n in range(1, noise.size):
            noise[n] = correlation * noise[n - 1] + np.sqrt(1 - correlation**2) * noise[n]
        interval = block_bootstrap(noise, 0.9, seed=repeat)
        assert interval is not None
        covered += interval[0] <= 1.2816 <= interval[1]
    assert covered >= 50  # 57 expected


def test_the_interval_narrows_with_more_samples_and_is_refused_for_few() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for n in (2_000, 50_000, 500_000):
        interval = block_bootstrap(rng.exponential(size=n), 0.99)
        assert interval is not None
        assert interval[0] <= 4.605 <= interval[1]
        widths.append(interval[1] - interval[0])
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert block_bootstrap(rng.exponential(size=300), 0.5) is None


def test_theory_agrees_with_a_long_simulation_of_the_queue() -> None:
    rng = np.random.default_rng(3)
    at = np.cumsum(rng.exponential(1 / 70, 400_000))
    simulated = queue_response(at, 0.01, 1)
    for q in (0.5, 0.9, 0.99):
        assert percentile(simulated, q) == pytest.approx(md1_response(q, 70, 0.01), rel=0.03)
    assert md1_waiting(0, 70, 0.01) == pytest.approx(0.3)


def test_a_stall_holds_up_who_is_in_service_and_who_comes() -> None:
    at = np.array([0.0, 0.95, 1.5, 2.1])
    response = queue_response(at, 0.1, 4, stall=(1.0, 2.0))
    np.testing.assert_allclose(response, [0.1, 1.05, 0.6, 0.1])
