"""SIGTERM loses nothing: what is under way, what is half sent, what waits to be accepted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import orjson
import pytest

from service.processes.run import ListeningSource
from service.server.listener import Listener, bind, listen
from service.settings import Settings
from tests.service import unprivileged
from tests.service.measure_drain import Plan, one_drain
from tests.service.process import Service, serving
from tests.service.traffic import request_of
from tests.service.wire import (
    GET,
    HALF_BODY,
    PATIENT,
    connected,
    next_response,
    only_response,
    responses,
    until_closed,
)
from tests.service.world import World

NOTICE_S = 5.0


@pytest.fixture(scope="module")
def as_image() -> Sequence[str]:
    """What a command is preceded by to run as the image's user, without capabilities."""
    try:
        return unprivileged.under() or (sys.executable,)
    except unprivileged.Cannot as error:
        pytest.skip(str(error))


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def draining(request: pytest.FixtureRequest, world: World) -> Iterator[Service]:
    """Ready, and with time between the signal and the end."""
    variables = {
        "QIN_DRAIN_NOTICE_S": str(NOTICE_S),
        "QIN_SHUTDOWN_GRACE_S": "30",
        "QIN_WORKERS": str(request.param),
    }
    with serving(world.models, world.store, **variables) as service:
        wait_for(service, "ready", request.param)
        yield service


def wait_for(service: Service, event: str, times: int = 1) -> None:
    """In its log."""
    deadline = time.monotonic() + 60
    while service.log.read_text().count(f'"event":"{event}"') < times:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_stop_answers_all_who_are_there_and_some_who_come(
    draining: Service, world: World, request: pytest.FixtureRequest
) -> None:
    body = orjson.dumps({"user_id": 1, "candidates": world.ids[:20].tolist()})
    whole = request_of(body, PATIENT)
    with connected(draining) as kept, connected(draining) as unused, connected(draining) as half:
        kept.sendall(GET)
        assert next_response(kept).status == 200
        half.sendall(whole[:-5])
        draining.process.send_signal(signal.SIGTERM)
        wait_for(draining, "draining", request.node.callspec.params["draining"])
        for connection in (kept, unused):  # a connection goes on until it is told to close
            connection.sendall(whole)
        half.sendall(whole[-5:])
        with connected(draining) as come_later:
            come_later.sendall(GET.replace(b"/livez", b"/readyz"))
            response = only_response(come_later)
            assert (response.status, response.problem) == (503, "not-ready")
        for connection in (kept, unused, half):
            response = only_response(connection)
            assert response.status == 200
            assert response.headers["connection"] == "close"
    assert draining.process.wait(30) == 0
    with pytest.raises(httpx.ConnectError), draining.client() as late:
        late.get("/livez")


def test_who_waits_at_the_door_is_let_in(world: World) -> None:
    """Connected and sent, but not yet accepted when the signal comes."""
    with serving(world.models, world.store) as service:
        service.process.send_signal(signal.SIGSTOP)
        with connected(service) as waiting:
            waiting.sendall(GET)
            service.process.send_signal(signal.SIGTERM)
            service.process.send_signal(signal.SIGCONT)
            (response,) = responses(until_closed(waiting))
        assert response.status == 200
        assert service.process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_other_signals_that_end_a_process_drain_it_too(
    world: World, workers: str, number: signal.Signals
) -> None:
    """A terminal that is closed sends SIGHUP, and often two of them."""
    body = orjson.dumps({"user_id": 1, "candidates": world.ids[:20].tolist()})
    whole = request_of(body, PATIENT)
    with ExitStack() as stack:
        service = stack.enter_context(
            serving(world.models, world.store, QIN_WORKERS=workers, QIN_SHUTDOWN_GRACE_S="30")
        )
        halves = [stack.enter_context(connected(service)) for _ in range(8)]
        for half in halves:
            half.sendall(whole[:-5])
        service.process.send_signal(number)
        wait_for(service, "draining")
        if number == signal.SIGHUP:
            service.process.send_signal(number)
        for half in halves:
            half.sendall(whole[-5:])
        assert [only_response(half).status for half in halves] == [200] * 8
        assert service.process.wait(30) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_without_a_meaning_end_nothing(world: World, workers: str) -> None:
    with serving(world.models, world.store, QIN_WORKERS=workers) as service:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            service.process.send_signal(number)
        wait_for(service, "signal ignored; SIGTERM stops the service", 2)
        with service.client() as client:
            assert client.get("/readyz").status_code == 200
        assert service.stop() == 0


def test_what_nohup_started_ignores_a_closed_terminal(world: World) -> None:
    with serving(world.models, world.store, under=("nohup",)) as service:
        service.process.send_signal(signal.SIGHUP)
        service.process.send_signal(signal.SIGUSR1)  # which is told of after that
        wait_for(service, "signal ignored; SIGTERM stops the service")
        assert service.log.read_text().count("draining") == 0
        assert service.stop() == 0


def test_no_connection_is_taken_before_a_stop_would_drain_it(world: World) -> None:
    """A lone process that ends while it still reads its settings and bundle loses none."""
    bound = bind("127.0.0.1", 0, "QIN_PORT")
    with closing(bound), pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname(), timeout=5)
    with ListeningSource(Settings(port=0, admin_port=0)) as doors:
        host, _, port = doors.url.removeprefix("http://").rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_at_once(world: World, workers: str) -> None:
    variables = {"QIN_DRAIN_NOTICE_S": "100", "QIN_SHUTDOWN_GRACE_S": "100"}
    with serving(world.models, world.store, QIN_WORKERS=workers, **variables) as service:
        service.process.send_signal(signal.SIGTERM)
        wait_for(service, "draining")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == -signal.SIGTERM


def test_ctrl_c_waits_for_no_balancer(world: World) -> None:
    variables = {"QIN_DRAIN_NOTICE_S": "100", "QIN_SHUTDOWN_GRACE_S": "100"}
    with serving(world.models, world.store, **variables) as service:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(30) == 0


def test_a_half_sent_body_is_cut_at_the_end_of_the_grace_time(world: World) -> None:
    variables = {"QIN_SHUTDOWN_GRACE_S": "1", "QIN_BODY_TIMEOUT_MS": "100000"}
    with serving(world.models, world.store, **variables) as service, connected(service) as half:
        half.sendall(HALF_BODY)
        assert service.stop() == 0
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    (cut,) = [line for line in lines if line["event"] == "requests aborted after the grace period"]
    assert cut["requests"] == 1
    assert [line for line in lines if line["level"] == "error"] == [cut]
    assert not any("exception" in line for line in lines)


async def test_a_stop_under_load_loses_no_request(world: World) -> None:
    await loses_nothing(world, Plan())


@pytest.mark.parametrize(("workers", "host"), [(1, "127.0.0.1"), (2, "::1")])
async def test_a_stop_without_capabilities_loses_no_fresh_connection(
    world: World, as_image: Sequence[str], workers: int, host: str
) -> None:
    plan = Plan(0, 0, probing=16, workers=workers, host=host, unprivileged=True)
    with tempfile.TemporaryDirectory() as folder:  # which another user can get to
        await loses_nothing(unprivileged.lent(world, Path(folder)), plan)


REFUSE = """
import socket
from service.server.listener import listen, refuse_new
listener = listen("127.0.0.1", 0, "QIN_PORT")
refuse_new(listener)
socket.create_connection(listener.getsockname(), timeout=5)
"""


def test_refusing_new_connections_takes_no_capability(as_image: Sequence[str]) -> None:
    """A socket filter would: CAP_NET_ADMIN, on some kernels."""
    environment = {**os.environ, "PYTHONPATH": unprivileged.LIBRARIES}
    done = subprocess.run([*as_image, "-", "-c", REFUSE], env=environment, capture_output=True)
    assert b"ConnectionRefusedError" in done.stderr, done.stderr


async def loses_nothing(world: World, plan: Plan) -> None:
    outcomes, _, code = await one_drain(world, plan, body_outlives_grace=True)
    assert outcomes.lost == []
    assert set(outcomes.statuses) == {200}
    assert code == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_closing_listener_refuses_at_once_and_keeps_who_is_in_the_queue(host: str) -> None:
    listener, entered = listen(host, 0, "QIN_PORT"), list[socket.socket]()
    address, family = listener.getsockname(), listener.family
    ours = Listener(listener, entered.append)
    waiting = [socket.create_connection(address[:2], timeout=5) for _ in range(20)]
    ours.open()
    closing = asyncio.create_task(ours.close())
    await asyncio.sleep(0)  # it has begun
    newcomer = socket.socket(family)
    newcomer.settimeout(5)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(newcomer.connect, address)
    assert not closing.done()
    await closing
    assert len(entered) == len(waiting)
    for one in waiting:
        one.sendall(b"still here")
    for one in entered:
        one.setblocking(True)
        assert one.recv(100) == b"still here"
    for one in (*waiting, *entered, newcomer):
        one.close()


def test_a_notice_beyond_the_grace_time_is_refused() -> None:
    with pytest.raises(ValueError, match="QIN_DRAIN_NOTICE_S: 8 exceeds QIN_SHUTDOWN_GRACE_S, 5"):
        Settings(drain_notice_s=8, shutdown_grace_s=5)
