"""What is let in, what is refused and how, and that the limit follows what came true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from time import perf_counter

import httpx
import pytest

from service.admission.admission import BATCH_SHARE, MOST_WRONG, SAFE, Admission, Permit
from service.context import Priority
from service.engine.engine import Engine, Job
from service.errors import OverCapacity
from service.observability.metrics import Metrics
from service.state import ServiceState
from tests.service.in_process import client_of, metric, opened
from tests.service.world import World

FAR = 3600.0  # seconds
OWN_S = 0.01  # work of a request of 64 candidates
AHEAD = 10  # such requests may be ahead
TARGET_S = (AHEAD + 1) * OWN_S / SAFE
LIST = 64


@pytest.fixture
async def admission() -> AsyncIterator[Admission]:
    """Of one engine thread, knowing that 64 candidates take 10 ms."""
    engine = Engine(1)
    admission = Admission(engine, Metrics(), TARGET_S)
    await came_true(admission, 0.0, times=1)
    yield admission
    await asyncio.to_thread(engine.close)


def took(permit: Permit, waited: float = 0.0) -> None:
    """A list of ``LIST`` was scored in OWN_S."""
    work = Job(None, lambda *_: None, [], permit.deadline, permit.priority)
    work.busy = OWN_S
    work.submitted, work.finished = 0.0, perf_counter()
    work.started = waited
    permit.scored(LIST, work)


async def came_true(admission: Admission, waited: float, times: int, ahead: int = 0) -> None:
    """So many requests, each let in behind ``ahead`` others, waited so long in truth."""
    with ExitStack() as stack:
        for _ in range(ahead):
            stack.enter_context(enter(admission))
        for _ in range(times):
            with enter(admission) as permit:
                took(permit, waited)
                permit.learn()


def enter(
    admission: Admission, candidates: int = LIST, priority: Priority = Priority.ONLINE
) -> Permit:
    return admission.enter(candidates, perf_counter() + FAR, priority)


def room(admission: Admission, candidates: int = LIST, priority: Priority = Priority.ONLINE) -> int:
    """How many more are let in."""
    with ExitStack() as stack:
        for let_in in range(10_000):
            try:
                stack.enter_context(enter(admission, candidates, priority))
            except OverCapacity:
                return let_in
    raise AssertionError("there is no limit")


async def test_what_counts_is_work_and_not_requests(admission: Admission) -> None:
    many_short, few_long = room(admission, LIST // 4), room(admission, LIST)
    assert few_long == pytest.approx(AHEAD, abs=2)
    assert many_short == pytest.approx(4 * few_long, abs=4)


async def test_room_comes_back_when_requests_end(admission: Admission) -> None:
    assert room(admission) == room(admission) > 0
    assert admission.forecast() == 0


async def test_batch_is_refused_first_and_takes_nothing_from_online(admission: Admission) -> None:
    online, batch = room(admission), room(admission, priority=Priority.BATCH)
    assert batch == pytest.approx(BATCH_SHARE * online, abs=1)
    with ExitStack() as stack:
        for _ in range(batch):
            stack.enter_context(enter(admission, priority=Priority.BATCH))
        with pytest.raises(OverCapacity) as refused:
            enter(admission, priority=Priority.BATCH)
        assert refused.value.headers["Retry-After"] == "5"
        assert room(admission) == online


async def test_a_long_list_stands_in_the_way_like_one_chunk(admission: Admission) -> None:
    with enter(admission, 5000):
        assert admission.forecast() == pytest.approx(128 / 64 * OWN_S, rel=0.01)


async def test_one_is_always_let_in(admission: Admission) -> None:
    with enter(admission, 100_000):
        pass


async def test_what_those_ahead_leave_no_time_for_is_refused(admission: Admission) -> None:
    soon = perf_counter() + 4 * OWN_S
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(enter(admission))
        stack.enter_context(admission.enter(LIST, soon))
        stack.enter_context(enter(admission))
        with pytest.raises(OverCapacity, match="deadline"):
            admission.enter(LIST, soon)
        stack.enter_context(enter(admission))


async def test_waits_longer_than_forecast_lower_the_limit(admission: Admission) -> None:
    before = admission.limit
    await came_true(admission, waited=2 * 5 * OWN_S, times=1000, ahead=5)
    assert admission.limit == pytest.approx(before / 2, rel=0.2)


async def test_waits_shorter_than_forecast_raise_it_to_a_bound(admission: Admission) -> None:
    """Most of their time passes elsewhere, say in the store: the engine could take more."""
    before = admission.limit
    await came_true(admission, waited=0.0, times=2000, ahead=8)
    assert 2 * before < admission.limit <= 1.001 * MOST_WRONG * before


async def test_two_may_be_ahead_however_low_the_target() -> None:
    engine = Engine(1)
    admission = Admission(engine, Metrics(), target_s=1e-4)
    await came_true(admission, waited=0.0, times=300)
    assert room(admission) == 3
    await asyncio.to_thread(engine.close)


@pytest.fixture
async def state(world: World) -> AsyncIterator[ServiceState]:
    async with opened(world, target_ms=1) as state:
        yield state


async def refused(state: ServiceState, **headers: str) -> httpx.Response:
    """An answer while there is no room for anybody."""
    with ExitStack() as stack:
        for _ in range(room(state.admission, 5000)):
            stack.enter_context(enter(state.admission, 5000))
        async with client_of(state) as client:
            body = {"user_id": 1, "candidates": [1, 2]}
            return await client.post("/v1/score", json=body, headers=headers)


async def test_a_refusal_says_when_to_come_again_and_is_counted(state: ServiceState) -> None:
    answer = await refused(state, **{"X-Request-Id": "mine"})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    content = answer.json()
    assert content["type"] == "urn:qin:problem:over-capacity"
    assert content["request_id"] == answer.headers["X-Request-Id"] == "mine"
    labels = {"priority": "online", "outcome": "refused"}
    assert metric(state, "qin_admission_total", **labels) >= 1
    assert metric(state, "qin_requests_total", route="/v1/score", status="429") == 1
    assert metric(state, "qin_problems_total", problem="over-capacity") == 1


async def test_a_refused_request_costs_neither_parsing_nor_store(state: ServiceState) -> None:
    await refused(state)
    assert metric(state, "qin_store_duration_seconds_count", operation="history") == 0
    async with client_of(state) as client:
        answer = await client.post("/v1/score", json={"user_id": 1, "candidates": [1, 2]})
    assert answer.status_code == 200
    assert state.admission.forecast() == 0


async def test_the_service_learns_what_its_answers_took(state: ServiceState) -> None:
    guess = state.admission.cost.predict(2)
    async with client_of(state) as client:
        await client.post("/v1/score", json={"user_id": 1, "candidates": [1, 2]})
    assert state.admission.cost.predict(2) != guess


async def test_whoever_fails_after_being_scored_teaches_as_well_and_once() -> None:
    engine = Engine(1)
    admission = Admission(engine, Metrics(), TARGET_S)
    with suppress(KeyError), enter(admission) as permit:
        took(permit)
        raise KeyError
    assert admission.cost.predict(LIST) == pytest.approx(OWN_S)
    limit = admission.limit
    permit.learn()
    assert admission.limit == limit
    await asyncio.to_thread(engine.close)
