"""Scores against the offline answer: what is close, what is wrong, what is mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.analysis.results import summarise
from loadtest.experiments.stub_process import StubProcess
from loadtest.generator.answer_form import places
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import Workload
from loadtest.oracle.comparison import TOLERANCE, UnknownVersion, check_run, worst_difference
from loadtest.oracle.stub_oracle import StubOracle
from tests.loadtest.canned import falsified

NAN = float("nan")


def difference(
    expected: list[float], ids: list[int], scores: list[float], top_k: int | None = None
) -> float:
    request: dict[str, Any] = {"candidates": [10, 20, 30, 40], "top_k": top_k}
    return worst_difference(request, np.array(expected), places(request, ids), np.array(scores))


def test_the_worst_score_counts() -> None:
    expected = [0.1, 0.2, 0.3, 0.4]
    assert difference(expected, [10, 20, 30, 40], expected) == 0
    assert difference(expected, [10, 20, 30, 40], [0.1, 0.2, 0.35, 0.41]) == pytest.approx(0.05)


def test_knowing_an_item_that_nobody_knows_is_wrong_and_so_is_the_reverse() -> None:
    assert difference([0.1, NAN, 0.3, 0.4], [10, 20, 30, 40], [0.1, NAN, 0.3, 0.4]) == 0
    assert difference([0.1, NAN, 0.3, 0.4], [10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4]) == np.inf
    assert difference([0.1, 0.2, 0.3, 0.4], [10, 20, 30, 40], [0.1, NAN, 0.3, 0.4]) == np.inf


def test_a_ranking_must_hold_the_best() -> None:
    expected = [0.1, 0.4, NAN, 0.2]
    assert difference(expected, [20, 40], [0.4, 0.2], top_k=2) == 0
    assert difference(expected, [20, 10], [0.4, 0.1], top_k=2) == np.inf
    assert difference(expected, [20, 40, 10], [0.4, 0.2, 0.1], top_k=4) == 0
    assert difference(expected, [20], [0.4], top_k=2) == np.inf
    assert difference(expected, [20, 40], [0.4, 0.3], top_k=2) == pytest.approx(0.1)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30, unique=True), st.integers(1, 30))
def test_any_honest_ranking_is_accepted(scores: list[float], k: int) -> None:
    expected = np.array(scores)
    ids = np.arange(expected.size) * 3 + 1
    best = np.argsort(-expected)[:k]
    request = {"candidates": ids.tolist(), "top_k": k}
    answered = places(request, ids[best].tolist())
    assert worst_difference(request, expected, answered, expected[best]) <= TOLERANCE


def test_a_version_nobody_has_is_wrong_throughout() -> None:
    with pytest.raises(UnknownVersion):
        StubOracle().scores("other", {"user_id": 1, "candidates": [1]})
    workload = Workload(candidates="4", distinct=50)
    with StubProcess(service="constant:1ms", servers=0) as stub:
        load = Load(stub.url, rate=100, seconds=0.5, warmup=0, workload=workload, keep_answers=True)
        with execute(load) as run:
            report = check_run(run, StubOracle(versions=("later",)))
            run.columns.attended[:] = run.columns.at  # a late generator's verdict is "invalid"
            result = summarise(run, [], report)
    assert report.unknown_versions == ["stub-1"]
    assert report.wrong_scores == report.checked == result["buckets"]["wrong"] == result["requests"]
    assert result["verdict"] == "fail"


def test_users_who_click_during_the_run_are_not_checked() -> None:
    workload = Workload(users="1..20", candidates="4", events=0.05, distinct=200)
    with StubProcess(service="constant:1ms", servers=0) as stub:
        load = Load(stub.url, rate=200, seconds=1, warmup=0, workload=workload, keep_answers=True)
        with execute(load) as run:
            report = check_run(run, StubOracle())
            result = summarise(run, [], report)
    assert report.unchecked > 0
    assert report.checked + report.unchecked + result["events"] == result["requests"]


def test_a_wrong_answer_that_says_what_it_lacked_has_a_reason_of_its_own() -> None:
    def degrade(answer: dict[str, Any]) -> None:
        answer["scores"][0] = 1.0
        answer["degraded"] = ["history"]

    workload = Workload(candidates="4", distinct=50)
    with (
        StubProcess(service="constant:1ms", servers=0) as stub,
        falsified(stub.url, degrade, every=5) as (url, _),
    ):
        load = Load(url, rate=100, seconds=0.5, warmup=0, workload=workload, keep_answers=True)
        with execute(load) as run:
            report = check_run(run, StubOracle())
            result = summarise(run, [], report)
    assert report.degraded == report.wrong_scores == result["buckets"]["wrong"] > 0
    assert result["reasons"] == {"degraded": report.degraded}
