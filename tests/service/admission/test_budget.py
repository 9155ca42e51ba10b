"""What is no scoring waits for its share of the event loop; its surplus is refused."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import httpx
import orjson
import pytest

from service.admission import loop_budget
from service.admission.loop_budget import (
    FAULT_A_BYTE_S,
    FAULTS,
    HELD_S,
    IN_FLIGHT_SHARE,
    LONGEST_S,
    LOOK_EVERY_S,
    MOST_OWED_S,
    MOST_WAITING_S,
    QUIET_S,
    RECEIVED_A_BYTE_S,
    REFUSAL_S,
    REFUSALS_SHARE,
    LoopBudget,
)
from service.api import writes
from service.api.budget import kind_of
from service.api.events import SLICE, STORED, Events
from service.api.gate import LARGE
from service.api.id_kind import id_kind
from service.context import PROBES, Priority
from service.items.fetcher import BATCH
from service.observability.exporter import ProcessExporter, ThrottledExporter
from service.observability.metered import Metered
from service.observability.metrics import Metrics
from service.scoring.pipeline import FEW_MISSED
from service.state import ServiceState
from tests.service.engine_gate import FAR
from tests.service.in_process import client_of, metric, opened
from tests.service.live import listening, until
from tests.service.world import World, make_world

MANY = 120  # more than may wait, whatever kind it is


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Its own, to be written to."""
    return make_world(tmp_path, items=40, users=3)


@pytest.fixture
async def state(world: World) -> AsyncIterator[ServiceState]:
    async with opened(world, deadline_ms=1e3 * FAR) as state:
        yield state


ROUTES = ("events", "items", "items read", "metrics", "stats", "stats of a version", "other")


def requests(world: World) -> dict[str, dict[str, Any]]:
    item = f"/v1/items/{world.ids[0]}"
    return {
        "events": {"method": "POST", "url": "/v1/events", "json": {"user_id": 1, "item_id": 2}},
        "items": {"method": "PATCH", "url": item, "json": {"likes_level": 1}},
        "items read": {"method": "GET", "url": item},
        "metrics": {"method": "GET", "url": "/metrics"},
        "stats": {"method": "GET", "url": "/v2/models/stats"},
        "stats of a version": {"method": "GET", "url": "/v2/models/qin/stats"},
        "other": {"method": "GET", "url": "/openapi.json"},
    }


@pytest.mark.parametrize("kind", ROUTES)
async def test_surplus_is_a_429_while_probes_and_scoring_are_answered(
    state: ServiceState, world: World, kind: str
) -> None:
    asked = requests(world)[kind]
    async with client_of(state) as client:
        async with state.budget._lane:  # nothing of it gets a turn
            answers = [asyncio.create_task(client.request(**asked)) for _ in range(MANY)]
            refused = [answer async for answer in _first(answers, MANY // 6)]
            assert {answer.status_code for answer in refused} == {429}
            assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
            for probe in PROBES:
                assert (await client.get(probe)).status_code == 200
            query = {"user_id": 1, "candidates": world.ids[:3].tolist()}
            assert (await client.post("/v1/score", json=query)).status_code == 200
        found = Counter(answer.status_code for answer in await asyncio.gather(*answers))
    assert set(found) <= {200, 204, 429}
    assert found[200] + found[204] >= 1
    labels = {"kind": kind.split()[0], "outcome": "refused"}
    assert metric(state, "qin_budget_requests_total", **labels) == found[429]
    assert metric(state, "qin_budget_seconds_total", kind=kind.split()[0]) > 0


async def _first(
    answers: list[asyncio.Task[httpx.Response]], count: int
) -> AsyncIterator[httpx.Response]:
    for answer in asyncio.as_completed(answers, timeout=FAR):
        yield await answer
        count -= 1
        if not count:
            return


def test_every_path_but_a_probe_has_a_kind() -> None:
    assert {kind_of(path) for path in PROBES} == {None}
    for path in ("/", "/docs", "/nothing", "/v2", "/v1/events/", "/livez/", "/v1/score"):
        assert kind_of(path) == "other"


async def test_bodies_that_do_not_come_take_nobodys_place(world: World) -> None:
    half = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    half += b"Content-Length: 1000000\r\n\r\n{"
    async with opened(world) as state, listening(state) as port:
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MANY)]
        for _, writer in slow:
            writer.write(half)
        await until(lambda: metric(state, "qin_connections", port="service", state="body") == MANY)
        async with httpx.AsyncClient(trust_env=False) as client:
            event = {"user_id": 1, "item_id": 2}
            answer = await client.post(f"http://127.0.0.1:{port}/v1/events", json=event)
        assert answer.status_code == 200
        for _, writer in slow:
            writer.close()


async def test_a_batch_gives_way_between_its_slices(state: ServiceState) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1

    batch = {"events": [{"user_id": n, "item_ids": [1, 2, 3]} for n in range(1000)]}
    events = Events(state.reader, state.metrics, 1000, id_kind(state))
    outcome = await events.take(orjson.dumps(batch), turn)
    assert outcome.applied == 1000
    assert turns == 1000 // SLICE + 1000 // STORED


async def test_beside_scoring_work_waits_until_its_share_allows_it() -> None:
    budget = LoopBudget(Metrics(), lambda: None)
    await asyncio.wait_for(budget.turn(), FAR)
    budget.spend("events", 0.02)
    began = perf_counter()
    await asyncio.wait_for(budget.turn(), FAR)
    assert perf_counter() - began >= 0.05  # at 20% at most, 15 ms take 75


async def test_without_scoring_work_does_not_wait() -> None:
    budget = LoopBudget(Metrics(), lambda: 0.0)
    budget.spend("events", 1e6)
    await asyncio.wait_for(budget.turn(), FAR)


async def test_what_waits_beside_scoring_goes_on_once_that_has_ended() -> None:
    """Not only when its turn would have come."""
    under_way = True
    budget = LoopBudget(Metrics(), lambda: None if under_way else 1.0)
    budget.spend("items", 1e6)
    turn = asyncio.create_task(budget.turn())
    await asyncio.sleep(2 * QUIET_S)
    assert not turn.done()
    under_way = False
    await asyncio.wait_for(turn, FAR)


async def test_what_waits_looks_seldom() -> None:
    """Each look is a round of the event loop that is charged to nothing."""
    looks = 0

    def scored() -> None:
        nonlocal looks
        looks += 1

    budget = LoopBudget(Metrics(), scored)
    budget.spend("items", 0.02)
    began = perf_counter()
    await asyncio.wait_for(budget.turn(), FAR)
    assert looks <= 5 + (perf_counter() - began) / LOOK_EVERY_S


async def test_bodies_that_are_refused_are_paid_for_beside_scoring_alone() -> None:
    scored = [0.0]
    budget = LoopBudget(Metrics(), lambda: scored[0])
    for _ in range(100):
        await budget.fault(10**6)
    assert budget.takes_faults
    scored[0] += 1
    began = perf_counter()
    for _ in range(3):
        await budget.fault(10**6)
        scored[0] += 1
    assert perf_counter() - began > 0.01


async def test_a_flood_that_has_ended_keeps_others_waiting_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of refusals and of bodies that scoring refuses, however many there were."""
    now = 1000.0
    monkeypatch.setattr(loop_budget, "monotonic", lambda: now)
    budget = LoopBudget(Metrics(), lambda: None)  # scoring goes on
    budget.spend("events", 100.0)
    budget._faults.level -= 100.0
    assert not budget.affords
    assert not budget.takes_faults
    now += 1.1 * MOST_OWED_S
    assert budget.affords
    assert budget.takes_faults


@pytest.mark.parametrize("what", ["refused", "fault"])
async def test_answers_that_wait_leave_room_for_others_in_flight(what: str) -> None:
    budget = LoopBudget(Metrics(), lambda: None, most_in_flight=40)

    async def refuse() -> None:
        await (budget.refused("other") if what == "refused" else budget.fault(10**9))

    answers = [asyncio.create_task(refuse()) for _ in range(40)]
    await asyncio.sleep(0)
    waiting = sum(not answer.done() for answer in answers)
    assert waiting == 40 * IN_FLIGHT_SHARE
    await asyncio.gather(*answers)


async def test_only_the_steps_of_a_coroutine_are_measured() -> None:
    spent = list[float]()

    async def work() -> str:
        _burn(0.01)
        await asyncio.sleep(0.05)
        _burn(0.01)
        return "done"

    assert await Metered(work(), spent.append) == "done"
    assert len(spent) == 2
    assert 0.02 <= sum(spent) < 0.05


async def test_what_ends_badly_is_measured_and_raised() -> None:
    spent = list[float]()

    async def work() -> None:
        try:
            await asyncio.sleep(FAR)
        finally:
            _burn(0.002)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Metered(work(), spent.append)
    assert len(spent) == 2


def _burn(seconds: float) -> None:
    began = thread_time()
    while thread_time() - began < seconds:
        pass


class Counting(ProcessExporter):
    rendered = 0

    async def render(self, *turn: Any) -> bytes:
        self.rendered += 1
        await asyncio.sleep(0.01)
        return b"%d" % self.rendered


async def test_a_scrape_is_one_for_all_who_ask_and_kept_where_another_is_not_afforded() -> None:
    metrics, scored = Metrics(), [0.0]
    budget = LoopBudget(metrics, lambda: scored[0])
    scrape = ThrottledExporter(Counting(metrics), budget)
    assert set(await asyncio.gather(*(scrape.render() for _ in range(20)))) == {b"1"}
    assert await scrape.render() == b"2"
    scored[0] += 1
    budget.spend("metrics", 1.0)
    assert await scrape.render() == b"2"


BROKEN = b'{"user_id":1,"candidates":[' + b"1," * 200_000


async def test_bodies_that_scoring_refuses_are_paid_for_and_large_ones_then_not_read(
    state: ServiceState, world: World
) -> None:
    good = {"user_id": 1, "candidates": world.ids[:3].tolist()}
    async with client_of(state) as client:
        assert (await client.post("/v1/score", content=BROKEN)).status_code == 422
        assert metric(state, "qin_budget_seconds_total", kind=FAULTS) > 0
        state.budget._faults.level = -FAR
        for path in ("/v1/score", "/v2/models/qin/infer"):
            answer = await client.post(path, content=BROKEN)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert len(BROKEN) > LARGE
        assert (await client.post("/v1/score", json=good)).status_code == 200
        began = perf_counter()
        assert (await client.post("/v1/score", content=b"{")).status_code == 400
        assert perf_counter() - began >= 0.9 * LONGEST_S


def full(state: ServiceState, kind: str) -> None:
    """As if as much of it waited as may."""
    state.budget.enter(kind, FAR)


async def test_a_list_of_which_much_is_missed_waits_for_its_place_or_is_refused(
    state: ServiceState, world: World
) -> None:
    few, many = [list(range(10**6, 10**6 + n)) for n in (FEW_MISSED, 2 * BATCH + 1)]
    async with client_of(state) as client:

        async def score(candidates: list[int], **more: int) -> httpx.Response:
            body = {"user_id": 1, "candidates": [*candidates, int(world.ids[0])], **more}
            return await client.post("/v1/score", json=body)

        answer = await score(many)
        assert (answer.status_code, answer.json()["unknown_items"]) == (200, many)
        assert metric(state, "qin_store_duration_seconds_count", operation="items") == 3
        assert metric(state, "qin_budget_seconds_total", kind="missed") > 0
        full(state, "missed")
        assert (await score(few)).status_code == 200
        answer = await score([one + 10**6 for one in many])
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert metric(state, "qin_budget_requests_total", kind="missed", outcome="refused") == 1
        assert state.admission.let_in() is not None
        assert state.admission.forecast(Priority.BATCH) == 0


@pytest.mark.parametrize("what", ["explain", "missed"])
async def test_a_turn_that_does_not_come_before_the_deadline_is_a_504(
    state: ServiceState, world: World, what: str
) -> None:
    asked = (
        list(range(10**6, 10**6 + FEW_MISSED + 1)) if what == "missed" else world.ids[:3].tolist()
    )
    body = {"user_id": 1, "candidates": asked, **({"explain": 2} if what == "explain" else {})}
    async with client_of(state) as client, asyncio.timeout(FAR), state.budget._lane:
        answer = await client.post("/v1/score", json=body, headers={"X-Deadline-Ms": "500"})
    assert answer.status_code == 504
    assert state.admission.let_in() is not None


async def test_explaining_is_charged_and_of_many_it_is_batch(
    state: ServiceState, world: World
) -> None:
    chunk, item = state.engine.chunk, int(world.ids[0])
    async with client_of(state) as client:
        for count, priority in ((chunk, "online"), (chunk + 1, "batch")):
            body = {"user_id": 1, "candidates": [item] * count, "explain": 2}
            answer = await client.post("/v1/score", json=body)
            assert answer.status_code == 200
            assert len(answer.json()["explanations"]) == count
            labels = {"priority": priority, "outcome": "admitted"}
            assert metric(state, "qin_admission_total", **labels) == 1
        assert metric(state, "qin_budget_seconds_total", kind="explain") > 0
    plain, told = (state.admission.enter(chunk, inf, explained=n) for n in (0, chunk))
    assert told.seconds > plain.seconds


async def test_the_refusal_of_a_long_list_waits_and_of_a_short_one_does_not(world: World) -> None:
    async with opened(world, target_ms=1) as state, client_of(state) as client:
        permits = []
        while state.admission.has_room(Priority.ONLINE):
            permits.append(state.admission.enter(5000, inf))
            permits[-1].__enter__()
        for candidates, long in ([1], False), ([10**12] * 5000, True):
            answer = await client.post("/v1/score", json={"user_id": 1, "candidates": candidates})
            assert answer.status_code == 429
            refused = metric(state, "qin_budget_requests_total", kind="long", outcome="refused")
            assert refused == long
        for permit in permits:
            permit.__exit__(None, None, None)


async def test_a_refused_caller_waits_the_longer_the_more_there_are() -> None:
    budget = LoopBudget(Metrics(), lambda: 0.0)
    began = perf_counter()
    ended = list[float]()

    async def refused() -> None:
        await budget.refused("other")
        ended.append(perf_counter() - began)

    await asyncio.gather(*(refused() for _ in range(40)))
    assert min(ended) >= 0.9 * HELD_S
    assert max(ended) >= 0.9 * (HELD_S + 39 * REFUSAL_S / REFUSALS_SHARE)


REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "a write of another type": (
        415,
        {"method": "POST", "url": "/v1/events", "content": b"1", "headers": {"Content-Type": "x"}},
    ),
    "no id": (422, {"method": "PUT", "url": "/v1/items/x", "json": {}}),
    "no method of an item": (405, {"method": "POST", "url": "/v1/items/1", "json": {}}),
    "another page": (
        403,
        {"method": "GET", "url": "/v2", "headers": {"Origin": "http://other.example"}},
    ),
    "no key": (
        401,
        {"method": "POST", "url": "/v1/score", "json": {}, "headers": {"Authorization": "x"}},
    ),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_a_caller_refused_before_its_body_is_read_waits_beside_scoring_alone(
    world: World, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, asked = REFUSED[why]
    asked = {
        **asked,
        "headers": {"Authorization": "Bearer " + 32 * "k", **asked.get("headers", {})},
    }
    async with opened(world, api_keys=f"shop:{32 * 'k'}") as state, client_of(state) as client:
        spent = metric(state, "qin_budget_seconds_total", kind=FAULTS)
        assert (await client.request(**asked)).status_code == status
        assert metric(state, "qin_budget_seconds_total", kind=FAULTS) == spent
        monkeypatch.setattr(LoopBudget, "is_quiet", False)
        began, level = perf_counter(), state.budget._faults.level
        assert (await client.request(**asked)).status_code == status
        assert perf_counter() - began >= 0.9 * HELD_S
        assert metric(state, "qin_budget_seconds_total", kind=FAULTS) > spent
        assert state.budget._faults.level == level  # large lists of others are read all the same


async def test_a_body_that_finds_no_room_by_its_announced_size_is_not_read(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_body(*_: Any, **__: Any) -> bytes:
        raise AssertionError("it was read")

    monkeypatch.setattr(writes, "read_body", read_body)
    state.budget.enter("events", 0.9 * MOST_WAITING_S)
    async with client_of(state) as client:
        answer = await client.post("/v1/events", json={"events": 20_000 * ["a click"]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")


async def test_large_bodies_are_parsed_one_in_each_round_of_the_loop() -> None:
    budget, seen = LoopBudget(Metrics(), lambda: 0.0), list[str]()

    async def body() -> None:
        await budget.one_at_a_time()
        seen.append("body")

    async def rounds() -> None:
        while seen.count("body") < 5:
            seen.append("round")
            await asyncio.sleep(0)

    async with asyncio.timeout(FAR):
        await asyncio.gather(rounds(), *(body() for _ in range(5)))
    assert "body,body" not in ",".join(seen)


async def test_large_scoring_bodies_wait_for_that_and_small_ones_do_not(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0

    async def one_at_a_time(_: LoopBudget) -> None:
        nonlocal waited
        waited += 1

    monkeypatch.setattr(LoopBudget, "one_at_a_time", one_at_a_time)
    async with client_of(state) as client:
        for path in ("/v1/score", "/v2/models/qin/infer"):
            assert (await client.post(path, content=b"{")).status_code == 400
    assert waited == 0
    async with client_of(state) as client:
        for path in ("/v1/score", "/v2/models/qin/infer"):
            assert (await client.post(path, content=BROKEN)).status_code in (400, 422)
    assert waited == 2


async def test_a_body_that_no_route_takes_is_charged_by_its_size(state: ServiceState) -> None:
    async with client_of(state) as client:
        answer = await client.post("/nothing", content=bytes(10**6))
        assert answer.status_code == 404
    assert metric(state, "qin_budget_seconds_total", kind="other") >= 10**6 * RECEIVED_A_BYTE_S


@pytest.mark.parametrize("size", [10**6, 10**8])  # less than may be, and more
async def test_a_refused_body_is_paid_for_as_it_is_inflated(state: ServiceState, size: int) -> None:
    body = gzip.compress(size * b" ")
    async with client_of(state) as client:
        headers = {"Content-Encoding": "gzip"}
        answer = await client.post("/v2/models/qin/infer", content=body, headers=headers)
        assert answer.status_code in (400, 413)
    assert metric(state, "qin_budget_seconds_total", kind=FAULTS) >= 10**6 * FAULT_A_BYTE_S
