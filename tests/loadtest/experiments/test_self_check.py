"""The issue's five proofs, run for real; and that the proofs themselves can fail."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from loadtest.analysis.queueing import md1_response
from loadtest.experiments import self_check
from loadtest.experiments.self_check import CHECKS, QUANTILES, Check, run_check


@pytest.mark.alone
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_proves_itself(check: self_check.CheckFunction) -> None:
    outcome = run_check(check)
    assert outcome.passed, f"{outcome.name}: {outcome.numbers}"


@pytest.mark.parametrize(
    ("way_ms", "later_ms", "passes"), [(0.3, 0.3, True), (0.3, 1.6, False), (9.0, 9.0, False)]
)
def test_the_way_to_the_stub_is_allowed_and_no_delay_beside(
    monkeypatch: pytest.MonkeyPatch, way_ms: float, later_ms: float, passes: bool
) -> None:
    """``later_ms``: of every request, against Erlang's formula."""
    exact = {name: 1e3 * md1_response(q, 70, 10e-3) for name, q in QUANTILES.items()}
    measured = {name: value + later_ms for name, value in exact.items()}
    result = {"latency_ms": {"corrected": measured}, "invalid_because": []}
    stub = SimpleNamespace(counts={"late_p99_us": 0})
    monkeypatch.setattr(self_check, "_way_ms", lambda service: way_ms)
    monkeypatch.setattr(self_check, "_measure", lambda load, **options: (result, stub))
    assert self_check.percentiles_agree_with_theory().passed is passes


def test_a_disturbed_failure_is_repeated_once_and_a_plain_one_not() -> None:
    def failing(disturbed: bool) -> tuple[list[int], self_check.CheckFunction]:
        calls: list[int] = []

        def check() -> Check:
            calls.append(1)
            return Check("x", passed=False, disturbed=disturbed, numbers={})

        return calls, check

    for disturbed, wanted in ((True, 2), (False, 1)):
        calls, check = failing(disturbed)
        assert not run_check(check).passed
        assert len(calls) == wanted
