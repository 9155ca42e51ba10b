"""The issue's five proofs, run for real; and that the proofs themselves can fail."""

from __future__ import annotations

import pytest

from loadtest.experiments import self_check
from loadtest.experiments.self_check import CHECKS, Check, run_check


@pytest.mark.alone
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_proves_itself(check: self_check.CheckFunction) -> None:
    outcome = run_check(check)
    assert outcome.passed, f"{outcome.name}: {outcome.numbers}"


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
