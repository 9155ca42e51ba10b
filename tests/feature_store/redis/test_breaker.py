"""The breaker alone, with a clock of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feature_store.redis.breaker import LEAST_FAILURES, OPENS_AFTER_S, Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_once_nothing_has_succeeded_for_a_while() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    assert not breaker.failed()
    clock.now = OPENS_AFTER_S / 2
    assert not breaker.failed()
    clock.now = OPENS_AFTER_S
    assert breaker.failed()
    assert breaker.open


def test_a_short_pause_does_not_open_it_however_many_fail() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(10_000):
        breaker.failed()
    clock.now = OPENS_AFTER_S * 0.99
    assert not breaker.failed()
    assert not breaker.open


def test_few_failures_do_not_open_it_however_long_ago_they_were() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed()
    clock.now = 100
    assert not breaker.failed()


def test_it_says_only_once_that_it_opens() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    opened = 0
    for _ in range(100):
        clock.now += 0.01
        opened += breaker.failed()
    assert opened == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans())))
def test_a_success_always_closes_it(events: list[tuple[float, bool]]) -> None:
    clock = Clock()
    breaker = Breaker(clock)
    failing_since, failures = 0.0, 0
    for wait, good in events:
        clock.now += wait
        if good:
            breaker.succeeded()
            failures = 0
        else:
            failing_since = failing_since if failures else clock.now
            failures += 1
            breaker.failed()
        assert not (good and breaker.open)
        if breaker.open:
            assert failures >= LEAST_FAILURES
            assert clock.now - failing_since >= OPENS_AFTER_S
