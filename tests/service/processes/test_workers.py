"""Several processes that answer: spread, replaced, told, ended."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import httpx
import pytest

from service.processes.parent import LIBC
from service.processes.worker_handle import STUCK_S
from tests.service.process import Service, serving, start
from tests.service.world import World

WORKERS = 2
DEADLINE_S = 60.0
PR_SET_CHILD_SUBREAPER = 36
MOST_S = 3.0  # for /livez beside a stopped worker: 0.5 where nothing else runs


def workers_of(service: Service) -> list[int]:
    """Process ids, the longest-lived first."""
    pid = service.process.pid
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ready_lines(service: Service) -> int:
    return service.log.read_text().count('"event":"ready"')


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def sockets_of(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def several(world: World) -> Iterator[Service]:
    with serving(world.models, world.store, QIN_WORKERS=str(WORKERS)) as service:
        wait_until(lambda: ready_lines(service) == WORKERS, "not all workers are ready")
        yield service


def ask(client: httpx.Client, world: World) -> httpx.Response:
    return client.post("/v1/score", json={"user_id": 1, "candidates": world.ids[:20].tolist()})


def test_connections_are_spread_evenly(several: Service, world: World) -> None:
    before = [sockets_of(pid) for pid in workers_of(several)]
    with ExitStack() as stack:
        clients = [stack.enter_context(several.client()) for _ in range(6 * WORKERS)]
        assert all(ask(client, world).status_code == 200 for client in clients)
        after = [sockets_of(pid) for pid in workers_of(several)]
    more = [now - then for now, then in zip(after, before, strict=True)]
    assert sum(more) == 6 * WORKERS
    assert max(more) - min(more) <= 2  # 0, but for what of an earlier client is just ending


def test_workers_share_one_item_table(several: Service) -> None:
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in workers_of(several)]
    files = [{line.split()[-1] for line in of.splitlines() if ".table" in line} for of in maps]
    assert files[0] == files[1] != set()


def test_a_killed_worker_costs_others_nothing_and_is_replaced(
    several: Service, world: World
) -> None:
    victim, other = workers_of(several)
    ready = ready_lines(several)
    with ExitStack() as stack:
        clients = [stack.enter_context(several.client()) for _ in range(4)]
        for client in clients:
            ask(client, world)
        os.kill(victim, signal.SIGKILL)
        for _ in range(20):  # new connections, while one worker is away
            with several.client() as client:
                assert ask(client, world).status_code == 200
        lost = 0
        for client in clients:
            try:
                assert ask(client, world).status_code == 200
            except httpx.TransportError:  # its connection was the victim's
                lost += 1
    assert lost <= len(clients) // WORKERS
    wait_until(lambda: ready_lines(several) == ready + 1, "it is not replaced")
    assert other in workers_of(several)
    assert len(workers_of(several)) == WORKERS


def test_a_connection_for_which_workers_have_no_descriptor_waits_and_is_answered(
    several: Service,
) -> None:
    workers = workers_of(several)
    before = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers]
    for pid, (_, hard) in zip(workers, before, strict=True):
        used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
        free = next(number for number in count() if number not in used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    with socket.create_connection((several.host, several.port), timeout=30) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1000)
        for pid, limits in zip(workers, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        connection.settimeout(30)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert workers_of(several) == workers


def test_one_that_is_killed_again_and_again_is_waited_for_but_not_for_long(world: World) -> None:
    waits = list[float]()
    with serving(world.models, world.store, QIN_WORKERS=str(WORKERS)) as service:
        # On a busy machine one may live for a second, after which nobody is waited for.
        while waits.count(2.0) < 2 and len(waits) < 12 and max(waits, default=0.0) <= 2.0:
            waits = killed_once_more(service, len(waits))
    assert 0.5 in waits
    assert max(waits) == 2.0


def killed_once_more(service: Service, before: int) -> list[float]:
    """The newest worker as soon as it is ready. What all were waited for: see ``waits_of``."""
    wait_until(lambda: ready_lines(service) == WORKERS + before, "it is not replaced")
    os.kill(workers_of(service)[-1], signal.SIGKILL)
    wait_until(lambda: len(waits_of(service)) == before + 1, "its end is not told")
    return waits_of(service)


def waits_of(service: Service) -> list[float]:
    """Seconds before another worker was started, of each that ended."""
    lines = service.log.read_text().splitlines(keepends=True)
    told = [line for line in lines if '"event":"worker exited"' in line and line.endswith("\n")]
    return [json.loads(line)["wait_s"] for line in told]


def test_a_worker_told_to_stop_is_replaced_and_loses_nothing(
    several: Service, world: World
) -> None:
    told, ready = workers_of(several)[0], ready_lines(several)
    os.kill(told, signal.SIGTERM)
    while is_alive(told):
        with several.client() as client:
            assert ask(client, world).status_code == 200
    wait_until(lambda: ready_lines(several) == ready + 1, "it is not replaced")


def test_a_worker_that_cannot_start_ends_the_service(world: World, tmp_path: Path) -> None:
    missing = f"lmdb://{tmp_path / 'none'}"
    service = start("--bundle", str(world.models), "--store", missing, "--workers", "2")
    assert service.process.wait(60) == 1
    said = service.log.read_text()
    service.remove()
    assert said.count("cannot serve: ") == 1
    assert str(tmp_path / "none") in said
    assert "Traceback" not in said


def test_others_that_cannot_start_are_tried_again_beside_the_one_that_answers(
    world: World, tmp_path: Path
) -> None:
    """As while the store is away for a moment."""
    store = tmp_path / "store"
    shutil.copytree(world.store.removeprefix("lmdb://"), store)
    with serving(world.models, f"lmdb://{store}", QIN_WORKERS=f"{WORKERS}") as service:
        store.rename(tmp_path / "away")
        wait_until(
            lambda: (
                service.process.poll() is not None
                or '"event":"worker exited"' in service.log.read_text()
            ),
            "the second worker has found no store",
        )
        shutil.rmtree(store, ignore_errors=True)
        (tmp_path / "away").rename(store)
        with service.client() as client:
            assert client.get("/readyz").status_code == 200
        wait_until(lambda: ready_lines(service) == WORKERS, "all answer")


def test_workers_without_a_fleet_are_refused(world: World) -> None:
    service = start("--bundle", str(world.models), "--workers", "2", QIN_FLEET="alone")
    assert service.process.wait(60) == 2
    assert "QIN_FLEET: several workers need one" in service.log.read_text()
    service.remove()


@pytest.mark.parametrize("stopped", [False, True], ids=["at work", "one is stopped"])
def test_a_supervisor_that_is_killed_leaves_no_worker_behind(world: World, stopped: bool) -> None:
    with serving(world.models, world.store, QIN_WORKERS="2") as service:
        wait_until(lambda: ready_lines(service) == 2, "not all workers are ready")
        left = workers_of(service)
        if stopped:
            os.kill(left[0], signal.SIGSTOP)
        service.process.kill()
        wait_until(lambda: not any(map(is_alive, left)), "a worker goes on")


def test_a_stopped_worker_is_replaced_and_silences_no_other(several: Service, world: World) -> None:
    """Also where no connection comes to it: it answers no pings."""
    victim, ready = workers_of(several)[0], ready_lines(several)
    os.kill(victim, signal.SIGSTOP)
    longest = 0.0
    while is_alive(victim):
        began = time.monotonic()
        with several.client() as fresh:
            assert fresh.get("/livez").status_code == 200
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    assert longest < MOST_S
    wait_until(lambda: ready_lines(several) == ready + 1, "it is not replaced")
    assert len(workers_of(several)) == WORKERS


def test_a_stopped_service_that_goes_on_ends_no_worker(several: Service) -> None:
    """Nor does a machine that was suspended: only time in which the supervisor runs counts."""
    supervisor, workers = several.process.pid, workers_of(several)
    stopping = [*workers, supervisor]
    for pid in stopping:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.2)  # pings go out that are not answered
    time.sleep(STUCK_S + 1)
    for pid in reversed(stopping):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)
    with several.client() as client:
        assert client.get("/livez").status_code == 200
    time.sleep(1.0)  # of looks
    assert workers_of(several) == workers


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Children that their parent leaves unreaped become children of this process."""
    assert LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    yield
    assert LIBC.prctl(PR_SET_CHILD_SUBREAPER, 0) == 0


def test_workers_killed_after_the_grace_period_are_reaped(world: World, subreaper: None) -> None:
    """The service has not ended before its workers have."""
    grace = {"QIN_WORKERS": "2", "QIN_SHUTDOWN_GRACE_S": "0"}
    service = start("--bundle", str(world.models), "--store", world.store, **grace)
    try:
        wait_until(lambda: workers_of(service), "no worker is started")
        (worker,) = workers_of(service)
        # Not before: the supervisor waits until it is a program of its own.
        wait_until(lambda: b"worker" in Path(f"/proc/{worker}/cmdline").read_bytes(), "no program")
        os.kill(worker, signal.SIGSTOP)  # it does not end by itself
        # A SIGTERM that comes before it has stopped is taken first, and ends it.
        wait_until(lambda: " T " in Path(f"/proc/{worker}/stat").read_text(), "it is not stopped")
        assert service.stop() == 0
        assert "killed after the grace period" in service.log.read_text()
        with pytest.raises(ChildProcessError):
            os.waitpid(worker, os.WNOHANG)
    finally:
        service.process.kill()
        service.process.wait()
        service.remove()


def test_sigterm_to_the_supervisor_ends_all_and_exits_with_0(world: World) -> None:
    with serving(world.models, world.store, QIN_WORKERS="2") as service:
        ended = workers_of(service)
        assert service.stop() == 0
        assert not any(map(is_alive, ended))
        assert "Traceback" not in service.log.read_text()
