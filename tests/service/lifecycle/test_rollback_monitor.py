"""When a new version is suspected of failures or slowness."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from service.lifecycle.rollback_monitor import Bounds, RollbackWindow
from service.observability.version_stats import VersionStats


def tallied(*seconds: float, failures: int = 0, candidates: int = 20, history: int = 9) -> Any:
    one = SimpleNamespace(stats=VersionStats(), name="old")
    answer(one, *seconds, candidates=candidates, history=history)
    for _ in range(failures):
        one.stats.failed()
    return one


def answer(version: Any, *seconds: float, candidates: int = 20, history: int = 9) -> None:
    for one in seconds:
        version.stats.answered()
        version.stats.took(candidates, history, one)


BOUNDS = Bounds(window_s=60, error_rate=0.02, p99_ratio=2)


def test_a_version_as_good_as_the_one_before_is_kept() -> None:
    old, new = tallied(*[0.01] * 1000), tallied()
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[0.012] * 1000)
    for _ in range(4):
        new.stats.failed()
    assert watch.violation() is None
    assert watch.slowness() is None


def test_too_many_failures_are_a_violation_with_its_numbers() -> None:
    old, new = tallied(*[0.01] * 1000), tallied(*[0.01] * 5, failures=90)
    watch = RollbackWindow(new, old, BOUNDS)
    assert watch.violation() is None  # what it did before it was switched to does not count
    answer(new, *[0.01] * 95)
    for _ in range(5):
        new.stats.failed()
    assert watch.violation() == "5 of 100 answers failed (limit 2.00%)"


def test_a_slow_tail_is_seen_once_there_are_enough_answers() -> None:
    old, new = tallied(*[0.01] * 1000), tallied()
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *(0.05 if i % 20 == 0 else 0.01 for i in range(458)))
    assert watch.slowness() is None
    answer(new, 0.01)
    slowness = watch.slowness()
    assert slowness is not None
    assert slowness.reason.startswith("23 of 459 answers took longer ")
    assert slowness.reason.endswith("p99 50.0 ms (limit 20.0 ms)")
    assert slowness.shapes == ((24, 12),)


def test_without_a_usual_p99_slowness_is_not_judged() -> None:
    new = tallied()
    watch = RollbackWindow(new, tallied(*[0.01] * 99), BOUNDS)
    answer(new, *[5.0] * 1000)
    for _ in range(1000):
        new.stats.expired += 1
    assert watch.slowness() is None


@pytest.mark.parametrize(("candidates", "history"), [(5000, 9), (600, 9), (20, 60), (33, 0)])
@pytest.mark.parametrize("share", [0.02, 1.0])
def test_longer_lists_or_histories_than_before_are_no_slowness(
    candidates: int, history: int, share: float
) -> None:
    old, new = tallied(*[0.01] * 4000), tallied()
    answer(old, *[0.4] * 40, candidates=candidates, history=history)  # too few to judge by
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[0.5] * int(1000 * share), candidates=candidates, history=history)
    answer(new, *[0.01] * int(1000 * (1 - share)))
    assert watch.slowness() is None


def test_each_kind_of_request_is_held_against_its_own_p99() -> None:
    old, new = tallied(*[0.01] * 500), tallied()
    answer(old, *[0.2] * 200, candidates=5000)
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[0.1] * 100)  # five times what short ones took, half of what long ones did
    answer(new, *[0.2] * 900, candidates=5000)
    slowness = watch.slowness()
    assert slowness is not None
    assert slowness.shapes == ((24, 12),)


def test_deadlines_that_pass_more_often_than_before_are_seen() -> None:
    old, new = tallied(*[0.01] * 500), tallied()
    old.stats.expired = 5
    watch = RollbackWindow(new, old, BOUNDS)
    for count, seen in ((9, False), (11, False), (40, True)):
        new.stats.answers = 1000
        new.stats.expired = count
        assert (watch.slowness() is not None) is seen
    slowness = watch.slowness()
    assert slowness is not None
    assert slowness.by_deadlines
    assert slowness.shapes == ((24, 12),)


def test_a_version_that_is_not_slower_is_compared_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("service.lifecycle.rollback_monitor.monotonic", lambda: clock.now)
    old, new = tallied(*[0.01] * 500), tallied()
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[1.0] * 500)
    waits = []
    for _ in range(3):
        began = clock.now
        while watch.slowness() is None:
            clock.now += 1
        waits.append(clock.now - began)
        watch.postpone()
    assert waits == [0, 10, 20]
