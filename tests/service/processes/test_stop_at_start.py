"""A stop does not wait for workers that answer nothing yet."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx

from tests.service.process import Service, start, wait_ready
from tests.service.processes.test_workers import is_alive, wait_until, workers_of
from tests.service.world import World

AT_ONCE_S = 10.0  # a second or two where nothing else runs
SLOW_IMPORT = """
import sys, time
if "worker" in sys.orig_argv and {number!r} in sys.orig_argv[-1]:
    time.sleep(600)
"""


def slow(folder: Path, number: str = '"number":') -> dict[str, str]:
    """Variables under which workers of this number import for ten minutes."""
    (folder / "sitecustomize.py").write_text(SLOW_IMPORT.format(number=number))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def starting(world: World, store: str | None = None, **variables: str) -> Iterator[Service]:
    variables = {"QIN_SHUTDOWN_GRACE_S": "60", "QIN_DRAIN_NOTICE_S": "30", **variables}
    options = ("--bundle", str(world.models), "--store", store or world.store, "--workers", "2")
    service = start(*options, **variables)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait(30)
        service.remove()


def ends_at_once(service: Service) -> None:
    workers, began = workers_of(service), time.monotonic()
    assert workers
    assert service.stop() == 0, service.log.read_text()
    assert time.monotonic() - began < AT_ONCE_S
    assert not any(map(is_alive, workers))
    assert "killed after the grace period" not in service.log.read_text()


def listening(service: Service) -> bool:
    return '"event":"listening"' in service.log.read_text() and bool(workers_of(service))


def test_a_stop_while_a_worker_imports_is_quick(world: World, tmp_path: Path) -> None:
    with starting(world, **slow(tmp_path)) as service:
        wait_until(lambda: listening(service), "it has not started")
        ends_at_once(service)


def test_so_it_is_beside_a_connection_that_no_worker_takes(world: World, tmp_path: Path) -> None:
    with starting(world, **slow(tmp_path)) as service:
        wait_until(lambda: listening(service), "it has not started")
        with closing(socket.create_connection((service.host, service.port), 30)) as waiting:
            waiting.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.3)
            ends_at_once(service)
            with suppress(ConnectionError):
                assert waiting.recv(1) == b""


def test_a_stop_while_a_worker_waits_for_its_store_is_quick(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        with starting(world, store, QIN_STORE_TIMEOUT_MS="60000") as service:
            connection, _ = silent.accept()
            with closing(connection):
                ends_at_once(service)


def test_the_ready_worker_goes_on_while_the_other_imports(world: World, tmp_path: Path) -> None:
    variables = {**slow(tmp_path, '"number":1'), "QIN_DRAIN_NOTICE_S": "2"}
    with starting(world, **variables) as service:
        wait_ready(service)
        wait_until(lambda: len(workers_of(service)) == 2, "no second worker")
        with service.client() as client:
            assert client.get("/readyz").status_code == 200
            ends_at_once(service)


def test_a_stop_while_a_worker_loads_waits_for_no_verification(world: World) -> None:
    with starting(world, QIN_DRAIN_NOTICE_S="0") as service:
        with service.client() as client:
            wait_until(lambda: answers(client), "no worker answers")
        assert service.stop() == 0
        log = service.log.read_text()
        assert '"event":"inspected"' not in log.partition('"event":"stopped"')[2], log


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
