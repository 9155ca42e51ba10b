"""The live stream: what it says, its place among the connections, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest

from service.console.figures import MINUTES, POINTS
from service.console.live import OVER, RETRY, Stream, View
from service.context import CONTEXT, RequestContext
from tests.service.console.conftest import QUIET, Served, browser_of
from tests.service.process import serving
from tests.service.world import World

FAR_S = 30.0


@contextmanager
def watching(client: httpx.Client) -> Iterator[Iterator[dict]]:  # type: ignore[type-arg]
    """The frames of a stream, as they come."""
    with client.stream("GET", "/console/stream") as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        yield (orjson.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))


def gauge(served: Served, state: str) -> float:
    with served.service.client() as client:
        text = client.get("/metrics").text
    line = f'qin_connections{{port="admin",state="{state}"}} '
    return sum(float(row.split()[1]) for row in text.splitlines() if row.startswith(line))


def test_a_frame_a_second_has_what_was_asked_and_how_it_went(
    served: Served, ann: httpx.Client
) -> None:
    item = int(served.world.ids[0])
    with watching(ann) as frames, served.service.client() as client:
        first = next(frames)
        for _ in range(20):
            assert client.post("/v1/score", json={"user_id": 1, "candidates": [item]}).is_success
        client.post("/v1/score", content=b"{}")
        client.get("/nothing")
        deadline = time.monotonic() + FAR_S
        seen = [first]
        while time.monotonic() < deadline:
            seen.append(next(frames))
            if {"invalid-field", "not-found"} <= seen[-1]["windows"]["1"]["errors"].keys():
                break
    last = seen[-1]
    assert {"invalid-field", "not-found"} <= last["windows"]["1"]["errors"].keys()
    assert {two["t"] - one["t"] for one, two in pairwise(seen)} == {1}
    assert set(last["windows"]) == {str(minutes) for minutes in MINUTES}
    assert 0 < last["windows"]["1"]["p50"] <= last["windows"]["1"]["p99"]
    (process,) = last["processes"]
    assert process["reachable"] is process["ready"] is True
    assert process["memory"] > 1e6
    assert last["roles"]["active"] == "small-2"


def test_a_stream_is_a_connection_of_its_own_kind(served: Served, ann: httpx.Client) -> None:
    with watching(ann) as frames:
        next(frames)
        assert gauge(served, "streaming") == 1
        assert gauge(served, "in_flight") == 0
    deadline = time.monotonic() + FAR_S
    while gauge(served, "streaming") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gauge(served, "streaming") == 0


def test_it_outlives_the_limits_of_answers_and_of_idle_connections(world: World) -> None:
    short = {"QIN_ANSWER_TIMEOUT_MS": "300", "QIN_KEEP_ALIVE_S": "1", **QUIET}
    with (
        serving(world.models, world.store, **short) as service,
        browser_of(Served(service, world)) as client,
        watching(client) as frames,
    ):
        assert len([next(frames) for _ in range(4)]) == 4


def test_more_than_there_is_room_for_are_refused(world: World) -> None:
    few = {"QIN_CONSOLE_STREAMS": "2", "QIN_MAX_IN_FLIGHT_CONNECTIONS": "1", **QUIET}
    with serving(world.models, world.store, **few) as service:
        served = Served(service, world)
        with (
            browser_of(served) as one,
            browser_of(served) as two,
            watching(one) as a,
            watching(two) as b,
        ):
            next(a), next(b)
            with browser_of(served) as three:
                assert three.get("/console").status_code == 200  # they take no request's place
                refused = three.get("/console/stream")
            assert refused.status_code == 429
            assert refused.headers["retry-after"]


@pytest.mark.parametrize("notice_s", ["0", "1"])
def test_a_drain_ends_it_at_once_and_nothing_else_waits(world: World, notice_s: str) -> None:
    drain = {"QIN_DRAIN_NOTICE_S": notice_s, "QIN_SHUTDOWN_GRACE_S": "20", **QUIET}
    with (
        serving(world.models, world.store, **drain) as service,
        browser_of(Served(service, world)) as client,
        watching(client) as frames,
    ):
        next(frames)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert len(list(frames)) <= 2
        assert service.process.wait(15) == 0
        assert time.monotonic() - began < 5
        assert "aborted" not in service.log.read_text()


@pytest.mark.parametrize("over", [False, True])
async def test_it_ends_with_the_session(over: bool) -> None:
    sent, views = list[dict[str, Any]](), set[View]()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body", RETRY) != RETRY:
            for view in views:
                view.end()

    scope = {"method": "GET", CONTEXT: RequestContext("id", {})}
    answer = asyncio.ensure_future(Stream(views, lambda: over)(scope, None, send))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    for view in views:
        view.tell(b"data: {}\n\n")
    await answer
    bodies = [message["body"] for message in sent if "body" in message]
    assert bodies == [RETRY] + ([OVER] if over else [b"data: {}\n\n"]) + [b""]
    assert not views


def test_the_series_have_a_point_for_each_step(ann: httpx.Client) -> None:
    for minutes in MINUTES:
        found = ann.get(f"/console/series?minutes={minutes}").json()
        lengths = {
            len(found[name]) for name in ("t", "answered", "refused", "failed", "p50", "p99")
        }
        (length,) = lengths
        assert length <= POINTS
        step = found["t"][1] - found["t"][0]
        assert length * step == 60 * minutes
        assert found["target"] == 10_000
    assert ann.get("/console/series?minutes=7").status_code == 422
