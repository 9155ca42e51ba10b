"""The tracker of connections: who is late, who makes room. With a clock of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.observability.metrics import Metrics
from service.server import connections as module
from service.server.connections import ConnectionLimits, ConnectionState, ConnectionTracker
from service.settings import Settings
from tests.service.in_process import opened
from tests.service.live import listening, until
from tests.service.world import World


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class One:
    """A connection; being cut it lingers, as a real one does."""

    def __init__(self, tracker: ConnectionTracker) -> None:
        self.state: ConnectionState | None = None
        self.tracker, self.cuts, self.aborted, self.holding = tracker, 0, False, False
        self.waits_for_us = False

    def expire(self) -> bool:
        if self.waits_for_us:
            self.tracker.move(self, self.state or self.tracker.headers)
            return False
        self.cuts += 1
        if self.state is self.tracker.lingering:
            self.abort()
        else:
            self.tracker.move(self, self.tracker.lingering)
        return True

    def abort(self) -> None:
        self.aborted = True
        self.tracker.leave(self)

    def release_body(self) -> None:
        self.cuts += 1

    def close_after_answer(self) -> None: ...

    def has_unsent(self) -> bool:
        return self.holding


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def tracker(**changed: Any) -> ConnectionTracker:
    return ConnectionTracker(ConnectionLimits.of(Settings(**changed)), Metrics())


def arrived(tracker: ConnectionTracker, state: ConnectionState, count: int) -> list[One]:
    found = [One(tracker) for _ in range(count)]
    for one in found:
        tracker.move(one, state)
    return found


def test_only_whoever_is_late_is_cut(clock: Clock) -> None:
    here = tracker(headers_timeout_ms=2000)
    (early,) = arrived(here, here.headers, 1)
    clock.now += 1.5
    (late,) = arrived(here, here.headers, 1)
    clock.now += 1.0
    here.sweep()
    assert (early.cuts, late.cuts) == (1, 0)


def test_every_state_has_its_own_time(clock: Clock) -> None:
    here = tracker(headers_timeout_ms=1000, body_timeout_ms=3000, keep_alive_s=10)
    (headers,), (body,), (idle,) = (
        arrived(here, state, 1) for state in (here.headers, here.body, here.idle)
    )
    (flying,) = arrived(here, here.in_flight, 1)
    cut = []
    for _ in range(100):
        clock.now += 1.0
        here.sweep()
        cut.append((headers.cuts > 0, body.cuts > 0, idle.cuts > 0))
    assert [cut.index((True, False, False)), cut.index((True, True, False))] == [0, 2]
    assert cut.index((True, True, True)) == 9
    assert flying.cuts == 0


def cut_times(
    clock: Clock, tracker: ConnectionTracker, late: list[One], seconds: float
) -> list[float]:
    """Seconds until each was cut, swept as often as a service sweeps."""
    begin, found, again = clock.now, list[float](), module.SWEEP_EVERY_S
    while clock.now - begin < seconds:
        clock.now += again
        again = tracker.sweep()
        found += [clock.now - begin] * (sum(one.cuts > 0 for one in late) - len(found))
    return found


def test_a_flood_is_cut_a_few_at_a_time_and_within_five_seconds_of_coming(clock: Clock) -> None:
    here = tracker()
    late = arrived(here, here.headers, 500)
    waited = Settings().headers_timeout_ms / 1000
    clock.now += waited
    times = cut_times(clock, here, late, 2)
    assert len(times) == 500
    assert times[0] <= 2 * module.SWEEP_EVERY_S
    assert waited + times[-1] < 4.8
    assert max(times.count(moment) for moment in set(times)) <= module.MOST_A_SWEEP


def test_only_beside_late_ones_is_swept_often(clock: Clock) -> None:
    here = tracker(headers_timeout_ms=1000)
    assert here.sweep() == module.AT_REST_S
    late = arrived(here, here.headers, 20)
    assert here.sweep() == module.AT_REST_S
    clock.now += 1.0
    while not all(one.cuts for one in late):
        assert here.sweep() == module.SWEEP_EVERY_S
        clock.now += module.SWEEP_EVERY_S
    assert here.sweep() == module.AT_REST_S


def test_those_who_came_together_are_spread_over_a_longer_time_when_they_go(clock: Clock) -> None:
    here = tracker(headers_timeout_ms=4000)
    late = list[One]()
    for _ in range(100):
        late += arrived(here, here.headers, 3)
        clock.now += 0.01
    clock.now += 3.0
    times = cut_times(clock, here, late, 3)
    assert len(times) == 300
    assert 1.2 < times[-1] - times[0] < 1.7


def test_whoever_waits_for_us_gets_its_time_anew(clock: Clock) -> None:
    here = tracker(body_timeout_ms=1000)
    (one,) = arrived(here, here.body, 1)
    one.waits_for_us = True
    clock.now += 5
    here.sweep()
    assert one.state is here.body
    one.waits_for_us = False
    clock.now += 0.5
    here.sweep()
    assert one.cuts == 0
    clock.now += 1
    here.sweep()
    assert one.cuts == 1


def test_the_longest_there_makes_room(clock: Clock) -> None:
    here = tracker(max_receiving_connections=3)
    some = arrived(here, here.headers, 5)
    assert [one.cuts for one in some] == [1, 1, 0, 0, 0]
    assert len(here.headers.members) == 3


def test_one_that_moves_on_is_not_in_the_way(clock: Clock) -> None:
    here = tracker(max_receiving_connections=3)
    first, *rest = arrived(here, here.headers, 3)
    here.move(first, here.in_flight)
    arrived(here, here.headers, 1)
    assert not any(one.cuts for one in (first, *rest))


def test_who_lingers_is_let_go(clock: Clock) -> None:
    here = tracker(headers_timeout_ms=1000)
    (one,) = arrived(here, here.headers, 1)
    for _ in range(2):
        clock.now += 2
        here.sweep()
    assert one.aborted
    assert len(here) == 0


def test_an_answer_that_nobody_takes_is_dropped(clock: Clock) -> None:
    here = tracker(answer_timeout_ms=5000)
    slow, quick = arrived(here, here.in_flight, 2)
    slow.holding = quick.holding = True
    for one in (slow, quick):
        here.track_unsent(one)
    clock.now += 3
    quick.holding = False
    here.sweep()
    clock.now += 3
    here.sweep()
    assert (slow.aborted, quick.aborted) == (True, False)
    assert not here.unsent


def test_leaving_is_counted_once(clock: Clock) -> None:
    left = []
    here = ConnectionTracker(ConnectionLimits.of(Settings()), Metrics(), lambda: left.append(1))
    (one,) = arrived(here, here.idle, 1)
    here.leave(one)
    here.leave(one)
    assert left == [1]


async def test_a_sweep_that_fails_is_not_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, failures = list[str](), [OSError("not connected") for _ in range(3)]
    sweep = ConnectionTracker.sweep

    def failing(connections: ConnectionTracker) -> float:
        if failures:
            raise failures.pop()
        return sweep(connections)

    async with opened(world, headers_timeout_ms=100) as state, listening(state) as port:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        monkeypatch.setattr(ConnectionTracker, "sweep", failing)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(reader.at_eof)
        writer.close()
    assert len(told) == 3
