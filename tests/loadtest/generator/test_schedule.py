"""Schedules are known before the first request: seeded, ordered, within their bounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.generator.replay import read_log, write_log
from loadtest.generator.schedule import Arrivals, ScheduleError
from loadtest.generator.workload import EVENT, SCORE

RATES = st.floats(1, 2000)
LENGTHS = st.floats(0.1, 20)
SHAPES = st.sampled_from(["poisson", "constant", "bursts:5", "ramp:0.5"])


@given(SHAPES, RATES, LENGTHS, st.integers(0, 2**32))
def test_times_ascend_within_the_run_and_follow_from_the_seed(
    shape: str, rate: float, length: float, seed: int
) -> None:
    arrivals = Arrivals.parse(shape)
    times = arrivals.times(rate, length, seed)
    assert (np.diff(times) >= 0).all()
    assert times.size == 0 or (times[0] >= 0 and times[-1] < length)
    np.testing.assert_array_equal(times, arrivals.times(rate, length, seed))


@given(SHAPES, st.floats(100, 2000), st.floats(2, 20), st.integers(0, 2**32))
def test_the_average_rate_is_the_one_asked_for(
    shape: str, rate: float, length: float, seed: int
) -> None:
    times = Arrivals.parse(shape).times(rate, length, seed)
    expected = rate * length
    spread = math.sqrt(expected * (5 if shape.startswith("bursts") else 1))
    assert abs(times.size - expected) <= 6 * spread + 1


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(Arrivals().times(1000, 100, seed=3))
    assert gaps.mean() == pytest.approx(1e-3, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    assert np.mean(gaps > 2e-3) == pytest.approx(math.exp(-2), rel=0.05)


def test_bursts_arrive_at_one_instant() -> None:
    times = Arrivals.parse("bursts:20").times(1000, 10, seed=1)
    _, sizes = np.unique(times, return_counts=True)
    assert (sizes == 20).all()


def test_a_ramp_ends_as_much_above_the_average_as_it_began_below() -> None:
    times = Arrivals.parse("ramp:100").times(1000, 60, seed=1)
    by_sixth, _ = np.histogram(times, 6, (0, 60))
    expected = [100 + 1800 * (n + 0.5) / 6 for n in range(6)]
    np.testing.assert_allclose(by_sixth / 10, expected, rtol=0.08)


@pytest.mark.parametrize(
    ("text", "rate", "seconds", "names"),
    [
        ("sine", 1, 1, "sine"),
        ("bursts", 1, 1, "bursts:NUMBER"),
        ("poisson:3", 1, 1, "poisson"),
        ("bursts:2.5", 10, 1, "2.5"),
        ("ramp:30", 10, 1, "30"),
        ("poisson", 0, 1, "rate"),
        ("poisson", 1, -1, "duration"),
        ("poisson", 1e9, 3600, "requests are more"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_by_name(
    text: str, rate: float, seconds: float, names: str
) -> None:
    with pytest.raises(ScheduleError, match=names):
        Arrivals.parse(text).times(rate, seconds, 0)


def test_a_recorded_log_is_replayed_as_it_was_written(tmp_path: Path) -> None:
    times = Arrivals().times(100, 2, seed=4)
    documents = [
        (SCORE, {"user_id": 1, "candidates": [1, 2]}),
        (EVENT, {"user_id": 1, "item_id": 2}),
    ]
    write_log(tmp_path / "log", times, documents)
    read, bodies = read_log(tmp_path / "log", speed=2)
    np.testing.assert_allclose(read, (times - times[0]) / 2)
    assert bodies == [documents[n % 2] for n in range(times.size)]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("", "empty"),
        ('{"at": 1, "user_id": 1}\n', "line 1: neither"),
        ('{"at": 1, "candidates": [1]}\nnonsense\n', "line 2"),
        ('{"at": 2, "candidates": [1]}\n{"at": 1, "candidates": [1]}\n', "line 2: earlier"),
        ('{"candidates": [1]}\n', "line 1"),
    ],
)
def test_a_damaged_log_names_its_line(tmp_path: Path, content: str, names: str) -> None:
    (tmp_path / "log").write_text(content)
    with pytest.raises(ScheduleError, match=names):
        read_log(tmp_path / "log")
