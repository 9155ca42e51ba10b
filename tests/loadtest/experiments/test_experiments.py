"""Search, compare, swap and soak: the arithmetic by itself, and once against a real stub."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from loadtest.analysis.results import summarise
from loadtest.analysis.slo import Slo
from loadtest.cli.experiments import changed
from loadtest.cli.options import LoadOptions
from loadtest.experiments import search as searching
from loadtest.experiments.compare import ORDER, _effect, failures, sentences
from loadtest.experiments.process import ProcessGone, descriptors, resident_mib
from loadtest.experiments.search import CURVE, Search
from loadtest.experiments.soak import ResourceMonitor
from loadtest.experiments.stub_process import StubProcess
from loadtest.experiments.swap import Admin, Swapper, judge
from loadtest.generator.runner import Load, Run, RunError, execute
from loadtest.generator.workload import Workload
from loadtest.oracle.comparison import check_run
from loadtest.oracle.stub_oracle import StubOracle

SMALL = Workload(users="1..50", items="1..200", candidates="4", distinct=200)


class Simulated(Search):
    """A service that meets the target up to a rate, except where it is told to stumble."""

    def __init__(self, capacity: float, start: float, stumbles: int = 0) -> None:
        super().__init__(Load("", rate=start), Slo.parse("p99=25ms"), 0.05, lambda line: None)
        object.__setattr__(self, "capacity", capacity)
        object.__setattr__(self, "stumbles", [stumbles])
        object.__setattr__(self, "asked", [])

    def measure(self, rate: float, number: int) -> dict[str, Any]:
        self.asked.append(rate)  # type: ignore[attr-defined]
        holds = rate <= self.capacity  # type: ignore[attr-defined]
        stumbles = self.stumbles  # type: ignore[attr-defined]
        if holds and rate > 0.9 * self.capacity and stumbles[0]:  # type: ignore[attr-defined]
            stumbles[0] -= 1
            holds = False
        return {"verdict": "pass" if holds else "fail", "rate": rate, "goodput_per_s": rate}


@pytest.mark.parametrize(("capacity", "start"), [(730, 10), (730, 5000), (3, 100), (1000, 1000)])
def test_the_knee_is_found_from_above_and_below(capacity: float, start: float) -> None:
    found = Simulated(capacity, start).run()
    assert capacity / 1.06 <= found["knee_per_s"] <= capacity
    assert found["first_miss_per_s"] > capacity
    assert [p["rate"] / found["knee_per_s"] for p in found["points"]] == pytest.approx(CURVE)


def test_the_knee_is_confirmed_three_times_in_a_row() -> None:
    steady = Simulated(500, 100)
    knee = steady.run()["knee_per_s"]
    confirmations = steady.asked[: -len(CURVE)].count(knee)  # type: ignore[attr-defined]
    assert confirmations == 1 + searching.CONFIRMATIONS
    stumbling = Simulated(500, 100, stumbles=2).run()
    assert 500 * 0.75 <= stumbling["knee_per_s"] <= 500


def test_a_target_that_never_holds_is_said() -> None:
    with pytest.raises(RunError, match="does not even hold"):
        Simulated(0.0, 100).run()


def test_a_search_outlives_a_step_of_which_nothing_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endings = iter([{"shed": 50}, {"ok": 50}])
    with StubProcess(service="constant:1ms", servers=0) as stub:
        load = Load(stub.url, rate=50, seconds=1, warmup=0, workload=SMALL)
        step = Search(load, Slo.parse("p50=9s"), say=lambda line: None)

        def told(run: Run, slos: list[Slo]) -> dict[str, Any]:
            nothing = {"ok": 0, "shed": 0, "timed_out": 0, "unsent": 0}
            return summarise(run, slos) | {"verdict": "pass", "buckets": nothing | next(endings)}

        monkeypatch.setattr(searching, "summarise", told)
        assert step.measure(50, 0)["buckets"]["ok"] == 50


def segments(rng: np.random.Generator, effect: float, drift: float) -> list[dict[str, Any]]:
    return [
        {
            "arm": arm,
            "latency_ms": {
                "p99": 20
                * (effect if arm == "B" else 1)
                * math.exp(drift * place + rng.normal(0, 0.01))
            },
        }
        for place, arm in enumerate(ORDER)
    ]


def test_a_drifting_machine_is_no_effect_and_an_effect_is_found_in_spite_of_it() -> None:
    rng = np.random.default_rng(0)
    for effect in (1.0, 1.2):
        rounds = [segments(rng, effect, drift=0.1) for _ in range(5)]
        found = _effect(rounds, "p99")
        assert found["b_over_a"]["low"] <= effect <= found["b_over_a"]["high"]
        assert found["b_over_a"]["ratio"] == pytest.approx(effect, rel=0.03)
        assert found["control"]["ratio"] == pytest.approx(1, abs=0.03)
    assert found["shown"]
    assert "1.2" in sentences({"p99": found})[0]


def test_no_effect_is_claimed_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    claimed = sum(
        _effect([segments(rng, 1.0, 0.0) for _ in range(4)], "p99")["shown"] for _ in range(200)
    )
    assert claimed <= 20  # 5% of the intervals, 10 of 200, leave out 1


def test_an_arm_whose_requests_fail_in_part_is_named_with_the_reasons() -> None:
    ends = {"A": {"ok": 90, "shed": 0}, "B": {"ok": 40, "shed": 47, "timed_out": 3}}
    rounds = [[{"arm": arm, "buckets": ends.get(arm, {"ok": 90})} for arm in ORDER]] * 3
    (warning,) = failures(rounds)
    assert warning.startswith("warning: B: 300 of 540 requests were not answered rightly ")
    assert "(shed 282, timed out 18)" in warning


def test_b_differs_from_a_by_what_was_changed() -> None:
    options = LoadOptions(url="http://127.0.0.1:1")
    b = changed(options, "http://127.0.0.1:2", ["candidates=128", "top-k=5", "user_zipf=0.5"])
    assert (b.url, b.candidates, b.top_k, b.user_zipf) == ("http://127.0.0.1:2", "128", 5, 0.5)
    assert b.rate == options.rate
    for bad in (["speeed=1"], ["candidates"], []):
        with pytest.raises(ValueError, match=r"change|compare"):
            changed(options, None, bad)


def test_swaps_under_load_are_counted_and_their_answers_checked() -> None:
    with StubProcess(
        service="constant:5ms", servers=0, admin_port=0, admin_token="secret", activation=0.02
    ) as stub:
        admin = Admin(stub.admin_url, "secret")
        admin.activate("stub-2")
        assert admin.versions() == ["stub-2", "stub-1"]
        admin.activate("stub-1")
        with pytest.raises(RunError, match="401"):
            Admin(stub.admin_url, "guess").activate("stub-1")
        load = Load(stub.url, rate=200, seconds=4, warmup=0, workload=SMALL, keep_answers=True)
        swapper = Swapper(admin, ["stub-1", "stub-2"], 6, begin=1.5, end=3.0, pid=stub.pid)
        with execute(load, background=swapper) as run:
            found = judge(run, swapper, check_run(run, StubOracle()))
    assert stub.counts["activations"] - 2 == found["swaps"] == 6
    assert (found["errors"], found["mixed_versions"], found["wrong_scores"]) == (0, 0, 0)
    assert found["checked"] == run.count
    assert run.versions == ["stub-1", "stub-2"]
    assert 20 <= found["activation_ms"]["p50"] < 60
    first = found["activation_to_first_answer_ms"]
    assert 20 <= first["p50"] < 80
    assert 5 <= found["first_response_ms"]["p50"] <= first["p50"]
    assert found["memory_ratio"] == pytest.approx(1, abs=0.1)
    assert found["requests_around"] + found["requests_without"] == run.count
    assert found["requests_without"] > 100


@pytest.mark.parametrize("setting", ["secret", "ann:secret", " ann:secret ben:other "])
def test_of_an_admin_token_with_a_name_the_token_alone_is_sent(setting: str) -> None:
    with StubProcess(service="constant:5ms", servers=0, admin_port=0, admin_token="secret") as stub:
        assert Admin(stub.admin_url, setting).versions() == ["stub-1", "stub-2"]


def test_a_refused_activation_is_an_error() -> None:
    with StubProcess(service="constant:1ms", servers=0, admin_port=0) as stub:
        load = Load(stub.url, rate=50, seconds=1, warmup=0, workload=SMALL)
        swapper = Swapper(Admin(stub.admin_url), ["stub-1", "absent"], 2, begin=0.1, end=0.9)
        with execute(load, background=swapper) as run:
            found = judge(run, swapper, None)
    assert found["errors"] == 1
    assert "404" in found["refused_activations"][0]


def test_memory_and_descriptors_are_those_of_the_process(quick_stub: StubProcess) -> None:
    before = descriptors(quick_stub.pid)
    load = Load(quick_stub.url, rate=100, seconds=1.5, warmup=0, workload=SMALL)
    watch = ResourceMonitor(quick_stub.pid, every=0.1)
    with execute(load, background=watch):
        pass
    assert resident_mib(quick_stub.pid) > 5
    assert max(sample["descriptors"] for sample in watch.samples) >= before + 8
    with pytest.raises(ProcessGone):
        resident_mib(2**22 + 1)


def test_a_leak_is_told_from_a_wobble() -> None:
    rng = np.random.default_rng(0)

    def watched(growth: float, opened: float) -> dict[str, Any]:
        samples = [
            {
                "at_s": float(n),
                "resident_mib": 200 * (1 + growth * n / 100) + rng.normal(0, 1),
                "descriptors": int(40 + opened * n / 100),
            }
            for n in range(100)
        ]
        return ResourceMonitor(1, samples=samples).judge(
            settle=0.2, growth=0.05, more_descriptors=16
        )

    assert watched(0.0, 0)["passed"]
    assert "memory" in watched(0.2, 0)["because"]
    assert "descriptors" in watched(0.0, 60)["because"]
    early = ResourceMonitor(1, gone=True).judge(settle=0.2, growth=0.05, more_descriptors=16)
    assert early["because"] == "the process ended"
    assert not ResourceMonitor(1).judge(settle=0.2, growth=0.05, more_descriptors=16)["passed"]
