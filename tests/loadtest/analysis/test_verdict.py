"""The bound on what n requests show, against MLPerf's own table and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis.slo import Slo, SloError
from loadtest.analysis.verdict import at_most, judge, needed


@pytest.mark.parametrize(("over", "requests"), [(0, 459), (1, 662), (5, 1307), (50, 6898)])
def test_the_table_of_mlperf_loadgen(over: int, requests: int) -> None:
    assert needed(over, 0.99, 0.99) == requests
    assert judge(requests, over, 0.99).outcome == "pass"
    assert judge(requests - 1, over, 0.99).outcome != "pass"


def test_a_thousandth_takes_4603_requests() -> None:
    assert needed(0, 0.999) == 4603


@given(st.integers(1, 400), st.data(), st.floats(0.001, 0.5))
def test_the_binomial_is_exact(n: int, data: st.DataObject, share: float) -> None:
    over = data.draw(st.integers(0, n))
    exact = math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(over + 1))
    assert at_most(over, n, share) == pytest.approx(exact, rel=1e-9, abs=1e-300)


@given(st.integers(0, 300), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_more_slow_requests_take_more_requests_to_outweigh(over: int, percentile: float) -> None:
    wanted = needed(over, percentile)
    assert wanted < needed(over + 1, percentile)
    assert judge(wanted, over, percentile).outcome == "pass"
    assert judge(wanted - 1, over, percentile).outcome != "pass"


def test_a_service_that_just_misses_is_passed_in_one_case_of_a_hundred() -> None:
    rng = np.random.default_rng(0)
    counts, times = np.unique(rng.binomial(2000, 0.01, 20_000), return_counts=True)
    outcomes = [judge(2000, int(count), 0.99).outcome for count in counts]
    for outcome in ("pass", "fail"):
        share = times[np.array(outcomes) == outcome].sum() / 20_000
        assert share <= 0.011, outcome


def test_no_requests_show_nothing() -> None:
    assert judge(0, 0, 0.99).outcome == "undecided"


def test_a_target_counts_every_request_that_was_not_answered_in_time() -> None:
    slo = Slo.parse("p99=25ms")
    assert (slo.percentile, slo.limit) == (0.99, 0.025)
    good = np.ones(1307, bool)
    good[:5] = False
    assert slo.judge(good).outcome == "pass"
    good[:6] = False
    assert slo.judge(good).outcome == "undecided"


def test_a_rare_percentile_is_not_judged_on_few_samples() -> None:
    slow = np.zeros(4602, bool)
    assert Slo.parse("p99.9=1s").judge(slow).outcome == "undecided"
    assert Slo.parse("p99.9=1s").judge(np.ones(4603, bool)).outcome == "pass"


@pytest.mark.parametrize("text", ["p99", "p99=25", "p100=1s", "99=25ms", "p0=1s", "p99=-1ms", ""])
def test_an_unreadable_target_is_refused(text: str) -> None:
    with pytest.raises(SloError, match="slo"):
        Slo.parse(text)
