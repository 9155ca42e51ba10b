"""The same stub, the same rate: p99 within 10% of what others measure, and the same verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.analysis.results import summarise
from loadtest.analysis.slo import Slo
from loadtest.experiments.stub_process import StubProcess
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import Workload
from tests.loadtest import rivals
from tests.loadtest.rivals import Outcome

RATE, SECONDS = 200.0, 20.0
# Exponential service of mean 10 ms, nobody waiting: p99 is 46 ms, whoever asks and however.
STUB = {"service": "exponential:10ms", "servers": 0}
TARGETS_MS = (60.0, 35.0)  # one is met, the other missed


def ours(target_ms: float) -> Outcome:
    with StubProcess(**STUB) as stub:
        workload = Workload(candidates="8")
        load = Load(stub.url, rate=RATE, seconds=SECONDS, warmup=0, workload=workload)
        with execute(load) as run:
            result = summarise(run, [Slo.parse(f"p99={target_ms:g}ms")])
    assert result["verdict"] != "invalid", result["invalid_because"]
    return Outcome(result["latency_ms"]["corrected"]["p99"], result["verdict"] == "pass")


@pytest.mark.parametrize("target_ms", TARGETS_MS)
def test_autocannon_measures_the_same(target_ms: float) -> None:
    if missing := rivals.missing_autocannon():
        pytest.skip(missing)
    with StubProcess(**STUB) as stub:
        theirs = rivals.autocannon(stub.url, RATE, SECONDS, target_ms)
    _agree(ours(target_ms), theirs)


@pytest.mark.parametrize("target_ms", TARGETS_MS)
def test_mlperf_loadgen_measures_the_same(target_ms: float, tmp_path: Path) -> None:
    if missing := rivals.missing_loadgen():
        pytest.skip(missing)
    with StubProcess(**STUB) as stub:
        theirs = rivals.loadgen(stub.url, RATE, SECONDS, target_ms, tmp_path)
    _agree(ours(target_ms), theirs)


def _agree(here: Outcome, there: Outcome) -> None:
    print(f"p99 here {here.p99_ms:.2f} ms, there {there.p99_ms:.2f} ms")
    assert here.p99_ms == pytest.approx(there.p99_ms, rel=0.1)
    assert here.met == there.met
