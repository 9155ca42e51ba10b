"""Admission, classes and deadlines hold for the protocol as for /v1/score."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.context import Priority
from service.state import ServiceState
from tests.service.api.oip.raw import INFER, body, listed, refused
from tests.service.in_process import client_of, metric, opened
from tests.service.world import World


@pytest.fixture
async def state(world: World) -> AsyncIterator[ServiceState]:
    async with opened(world) as state:
        yield state


def asked(world: World, **parameters: Any) -> bytes:
    candidates = world.ids[:9].tolist()
    return body(listed("user_id", [3]), listed("item_id", candidates), parameters=parameters)


def admitted(state: ServiceState, priority: str) -> float:
    return metric(state, "qin_admission_total", priority=priority, outcome="admitted")


@pytest.mark.parametrize("path", [INFER, "/v2/models/qin/versions/active/infer"])
async def test_without_room_the_answer_is_a_429_that_says_when_to_come_again(
    world: World, path: str
) -> None:
    async with opened(world, target_ms=1) as state, client_of(state) as client:
        permits = []
        while state.admission.forecast() <= state.admission.limit:
            permits.append(state.admission.enter(5000, float("inf"), Priority.ONLINE))
            permits[-1].__enter__()
        answer = await client.post(path, content=b"never read")
        assert "capacity" in refused(answer, 429)
        assert answer.headers["Retry-After"] == "1"
        named = path.replace("/qin/", "/{model}/").replace("/active/", "/{version}/")
        assert metric(state, "qin_requests_total", route=named, status="429") == 1
        for permit in permits:
            permit.__exit__(None, None, None)
        assert (await client.post(path, content=asked(world))).status_code == 200


@pytest.mark.parametrize(
    ("priority", "header", "expected"),
    [
        (None, None, "online"),
        (0, None, "online"),
        (1, None, "online"),
        (2, None, "batch"),
        (2**64, None, "batch"),
        (0, "batch", "batch"),
        (7, "online", "batch"),
    ],
)
async def test_a_priority_beyond_the_first_is_batch(
    state: ServiceState, world: World, priority: int | None, header: str | None, expected: str
) -> None:
    async with client_of(state) as client:
        given = {} if priority is None else {"priority": priority}
        content = asked(world).replace(b'"parameters":{}', b'"parameters":{%s}' % _json(given))
        headers = {"X-Priority": header} if header else {}
        answer = await client.post(INFER, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    other = {"online": "batch", "batch": "online"}[expected]
    assert (admitted(state, expected), admitted(state, other)) == (1, 0)


def _json(parameters: dict[str, int]) -> bytes:
    return b",".join(b'"%s":%d' % (name.encode(), n) for name, n in parameters.items())


@pytest.mark.parametrize("priority", [-1, 1.0, "1", True])
async def test_a_priority_that_is_none_is_refused(
    state: ServiceState, world: World, priority: object
) -> None:
    async with client_of(state) as client:
        answer = await client.post(INFER, content=asked(world, priority=priority))
    assert "parameters.priority" in refused(answer)


@pytest.mark.parametrize(
    ("microseconds", "header", "status"),
    [(1, None, 504), (0, "0.001", 504), (9_000_000, "0.001", 504), (1, "9000", 504), (0, "0", 400)],
)
async def test_the_shorter_of_timeout_and_header_counts(
    state: ServiceState, world: World, microseconds: int, header: str | None, status: int
) -> None:
    headers = {"X-Deadline-Ms": header} if header else {}
    async with client_of(state) as client:
        answer = await client.post(
            INFER, content=asked(world, timeout=microseconds), headers=headers
        )
    refused(answer, status)


async def test_stages_are_told_and_sum_to_the_total(state: ServiceState, world: World) -> None:
    async with client_of(state) as client:
        answer = await client.post(
            INFER, content=asked(world), headers={"X-Server-Timing": "1", "X-Request-Id": "mine"}
        )
    assert answer.headers["X-Request-Id"] == "mine"
    assert answer.headers["X-Model-Version"] == "small-1"
    stages = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    total = float(stages.pop("total"))
    assert {"receive", "parse", "store", "table", "queue", "rank", "encode"} <= set(stages)
    assert sum(map(float, stages.values())) == pytest.approx(total, abs=0.02)
    assert metric(state, "qin_stage_duration_seconds_count", stage="rank", outcome="ok") == 1
