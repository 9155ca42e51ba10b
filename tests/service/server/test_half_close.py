"""A client may shut down its side after its request, and gets its answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from service.admission.admission import Permit
from service.api.app import create_app
from service.context import CONNECTION, Priority
from service.engine.engine import Engine
from service.engine.request_queue import RequestQueue
from service.state import ServiceState
from tests.service.engine_gate import FAR, Gate, Owner
from tests.service.in_process import metric, opened
from tests.service.live import listening, until
from tests.service.process import Service
from tests.service.server.test_disconnect import resets_when_closed
from tests.service.wire import GET, connected, responses, until_closed
from tests.service.world import World

BODY = json.dumps({"user_id": 1, "candidates": [1] * 1000}).encode()
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(BODY)
SCORE = HEAD + BODY
PATIENT = SCORE.replace(b"Host", b"X-Deadline-Ms: 10000\r\nHost", 1)


def statuses(said: bytes) -> list[int]:
    return [one.status for one in responses(said)]


@pytest.mark.parametrize("admin", [False, True])
def test_a_client_that_shuts_down_its_side_gets_its_answer(service: Service, admin: bool) -> None:
    with connected(service, admin=admin) as connection:
        connection.sendall(GET.replace(b"/livez", b"/admin/models") if admin else PATIENT)
        connection.shutdown(socket.SHUT_WR)
        (response,) = responses(until_closed(connection))
    assert response.status == 200
    assert response.headers["connection"] == "close"


def test_all_requests_sent_ahead_are_answered_and_one_that_broke_off_is_not(
    service: Service,
) -> None:
    for broken in (b"", GET[:-5], PATIENT[:-1]):
        with connected(service) as connection:
            connection.sendall(PATIENT + GET + PATIENT + broken)
            connection.shutdown(socket.SHUT_WR)
            assert statuses(until_closed(connection)) == [200, 200, 200], broken


def test_a_refusal_is_read_as_well(service: Service, client: httpx.Client) -> None:
    for sent, status in (
        (PATIENT + b"\x16\x03\x01\r\n\r\n", 400),
        (HEAD.replace(b"Length: ", b"Length: 999999999"), 413),
    ):
        with connected(service) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert statuses(until_closed(connection))[-1] == status


@pytest.mark.parametrize("sent", [b"", GET[:-5], PATIENT[:-1], b"POST / HT"])
def test_what_broke_off_is_closed_without_an_answer(service: Service, sent: bytes) -> None:
    with connected(service) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert until_closed(connection) == b""


def test_an_idle_connection_is_closed_at_once(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(GET)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65_536) == b""


Asked = tuple[ServiceState, Gate, asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def waiting(world: World) -> AsyncIterator[Asked]:
    """A score request that waits for the only engine thread, which is held."""
    async with opened(world, threads=1, deadline_ms=1e3 * FAR) as state, listening(state) as port:
        gate = Gate(state.engine)
        await gate.closed()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SCORE)
        await until(lambda: state.engine.queued)
        yield state, gate, reader, writer
        await gate.open()
        writer.close()


def under_way(state: ServiceState) -> dict[Priority, int]:
    return dict(state.admission._under_way)


async def test_it_goes_on_at_batch_priority_and_admission_is_right(world: World) -> None:
    async with waiting(world) as (state, gate, reader, writer):
        assert under_way(state) == {Priority.ONLINE: 1, Priority.BATCH: 0}
        assert state.admission.forecast() > 0
        writer.write_eof()
        await until(lambda: under_way(state)[Priority.BATCH])
        assert under_way(state) == {Priority.ONLINE: 0, Priority.BATCH: 1}
        assert state.admission.forecast() == 0  # newcomers go first
        assert state.admission.forecast(Priority.BATCH) > 0
        await gate.open()
        (response,) = responses(await reader.read())
        assert response.status == 200
        await until(lambda: under_way(state) == dict.fromkeys(Priority, 0))
        assert state.admission.forecast(Priority.BATCH) == 0


class HalfClosed:
    """A connection whose client has shut down its side already."""

    has_left, has_half_closed = False, True

    def whole_body(self) -> None: ...

    def watch(self, left: Callable[[], None] | None) -> None: ...

    def watch_half_close(self, half_closed: Callable[[], None] | None) -> None:
        assert half_closed is None, "it has happened already"


async def test_one_that_has_shut_down_before_its_turn_is_admitted_as_batch(world: World) -> None:
    async with opened(world) as state:
        inner = create_app(state)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope[CONNECTION] = HalfClosed()
            await inner(scope, receive, send)

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            headers = {"Content-Type": "application/json"}
            answer = await client.post("/v1/score", content=BODY, headers=headers)
        assert answer.status_code == 200
        admitted = {"priority": "batch", "outcome": "admitted"}
        assert metric(state, "qin_admission_total", **admitted) == 1


async def test_a_reset_after_it_cancels(world: World) -> None:
    async with waiting(world) as (state, gate, _, writer):
        writer.write_eof()
        await until(lambda: under_way(state)[Priority.BATCH])
        resets_when_closed(writer)
        writer.transport.abort()
        await until(lambda: metric(state, "qin_problems_total", problem="client-gone"))
        before = state.engine.chunks
        await gate.open()
        await state.engine.run(lambda *_: None, 1, perf_counter() + FAR)
        assert state.engine.chunks == before + 2  # the gate's own, and the one to wait for
        assert under_way(state) == dict.fromkeys(Priority, 0)


async def test_one_that_is_cut_at_the_end_of_the_grace_time_ends_without_an_error(
    world: World,
) -> None:
    errors = list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with opened(world, threads=1, deadline_ms=1e3 * FAR) as state:
        gate = Gate(state.engine)
        async with listening(state) as port:  # at its end all is cut
            await gate.closed()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SCORE)
            writer.write_eof()
            await until(lambda: under_way(state)[Priority.BATCH])
        assert await reader.read() == b""
        writer.close()
        await until(lambda: under_way(state) == dict.fromkeys(Priority, 0))
        await gate.open()
    assert errors == []


def test_what_falls_to_batch_while_it_waits_gives_way_to_what_comes_later() -> None:
    turns = RequestQueue[Owner]()
    falls, later = Owner(Priority.ONLINE), Owner(Priority.ONLINE)
    turns.put(falls)
    falls.priority = Priority.BATCH
    turns.put(later)
    assert [turns.take(), turns.take()] == [later, falls]
    assert len(turns) == 0


async def test_the_chunks_that_are_left_take_the_turns_of_their_owners_new_class() -> None:
    engine, order = Engine(1, chunk=1), list[str]()
    gate, owner = Gate(engine), Owner(Priority.ONLINE)
    await gate.closed()

    def run(name: str) -> Callable[[int, int], None]:
        return lambda *_: order.append(name)

    async def soon(work: Awaitable[object]) -> None:
        await work

    first = asyncio.create_task(
        soon(engine.run(run("falls"), 3, perf_counter() + FAR, priority=owner))
    )
    await until(lambda: engine.queued == 1)
    owner.priority = Priority.BATCH
    second = asyncio.create_task(soon(engine.run(run("online"), 3, perf_counter() + FAR)))
    await until(lambda: engine.queued == 2)
    await gate.open()
    await asyncio.gather(first, second)
    engine.close()
    assert order == ["online"] * 3 + ["falls"] * 3


async def test_a_permit_is_deferred_once(world: World) -> None:
    async with opened(world) as state:
        with state.admission.enter(10, perf_counter() + FAR) as permit:
            assert isinstance(permit, Permit)
            for _ in range(2):
                permit.defer()
                assert under_way(state) == {Priority.ONLINE: 0, Priority.BATCH: 1}
        assert under_way(state) == dict.fromkeys(Priority, 0)
