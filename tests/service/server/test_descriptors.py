"""With few descriptors the limits on connections are lowered, and newcomers find room."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import structlog

from service.observability.metrics import Metrics
from service.server import descriptors
from service.server.connections import ConnectionLimits, ConnectionTracker
from service.server.listener import Listener
from service.settings import Settings
from tests.service.live import until
from tests.service.process import Service, start, wait_ready
from tests.service.server.test_connections import arrived
from tests.service.wire import GET, connected, next_response
from tests.service.world import World

DESCRIPTORS = 400
IDLE_CLIENTS = 500


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two workers"])
def narrow(world: World, request: pytest.FixtureRequest) -> Iterator[Service]:
    service = start(
        *("--bundle", str(world.models), "--store", world.store),
        under=("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh"),
        QIN_WORKERS=request.param,
    )
    try:
        wait_ready(service)
        yield service
    finally:
        service.stop()
        service.remove()


def test_what_was_lowered_is_said_once_at_the_start(narrow: Service) -> None:
    said = [line for line in narrow.log.read_text().splitlines() if "are lowered" in line]
    assert len(said) == 1
    for name, most in (("IDLE", 2000), ("RECEIVING", 1000), ("IN_FLIGHT", 1000)):
        assert f'"QIN_MAX_{name}_CONNECTIONS":"{most} -> {most * 300 // 4000}"' in said[0]
    assert f'"descriptors":{DESCRIPTORS}' in said[0]


def test_newcomers_and_probes_are_answered_beside_more_idle_clients_than_descriptors(
    narrow: Service,
) -> None:
    with ExitStack() as stack:
        for _ in range(IDLE_CLIENTS):
            idle = stack.enter_context(connected(narrow))
            idle.settimeout(8)
            idle.sendall(GET)
            assert next_response(idle).status == 200
        for _ in range(20):
            with connected(narrow) as newcomer:
                newcomer.settimeout(8)
                newcomer.sendall(GET.replace(b"/livez", b"/readyz"))
                assert next_response(newcomer).status == 200


def test_silent_clients_make_room_too(narrow: Service) -> None:
    with ExitStack() as stack:
        for _ in range(IDLE_CLIENTS):
            stack.enter_context(connected(narrow))
        for _ in range(20):
            with connected(narrow) as newcomer:
                newcomer.settimeout(8)
                newcomer.sendall(GET)
                assert next_response(newcomer).status == 200


@contextmanager
def limited(soft: int, hard: int) -> Iterator[list[tuple[int, int]]]:
    """Of a process that may open so many; what it asked to have changed."""
    asked = list[tuple[int, int]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        patch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
        yield asked


def test_the_soft_limit_is_raised_before_anything_is_lowered() -> None:
    settings = Settings()
    with limited(1024, 1_048_576) as asked:
        assert descriptors.fitted(settings) is settings
    assert asked == [(8256, 1_048_576)]
    with limited(1024, resource.RLIM_INFINITY) as asked:
        assert descriptors.fitted(settings) is settings
    assert asked == [(8256, resource.RLIM_INFINITY)]


def test_limits_that_fit_are_left_alone() -> None:
    settings = Settings(
        max_idle_connections=500, max_receiving_connections=150, max_in_flight_connections=100
    )
    with limited(1024, 1024) as asked, structlog.testing.capture_logs() as said:
        assert descriptors.fitted(settings) is settings
    assert (asked, said) == ([], [])


@pytest.mark.parametrize("most", [16, 64, 1024, 4000])
def test_what_is_lowered_keeps_its_proportions_and_a_reserve(most: int) -> None:
    with limited(most, most), structlog.testing.capture_logs() as said:
        found = descriptors.fitted(Settings())
    all_three = (
        found.max_idle_connections,
        found.max_receiving_connections,
        found.max_in_flight_connections,
    )
    assert sum(all_three) <= most - min(256, most // 4)
    assert all_three[0] == pytest.approx(2 * all_three[1], abs=2)
    assert said[0]["log_level"] == "warning"


def test_the_longest_idle_makes_room_and_what_is_answered_does_not() -> None:
    here = ConnectionTracker(ConnectionLimits.of(Settings()), Metrics())
    (flying,) = arrived(here, here.in_flight, 1)
    assert not here.make_room()
    (silent,) = arrived(here, here.headers, 1)
    first, second = arrived(here, here.idle, 2)
    for gone in (first, second):
        assert here.make_room()
        assert gone.cuts == 1
        here.leave(gone)
    assert here.make_room()
    assert (silent.aborted, flying.aborted) == (True, False)


class Exhausted:
    """A listening socket in a process without a descriptor to spare, until there is one."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener, self.spare = listener, 0

    def accept(self) -> tuple[socket.socket, object]:
        if not self.spare:
            raise OSError(errno.EMFILE, "Too many open files")
        self.spare -= 1
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()


async def test_without_a_descriptor_a_connection_makes_room_and_the_newcomer_comes_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        exhausted, entered = Exhausted(listener), list[socket.socket]()

        def make_room() -> bool:
            asyncio.get_running_loop().call_soon(setattr, exhausted, "spare", 1)
            return True

        door = Listener(exhausted, entered.append, make_room)  # type: ignore[arg-type]
        door.open()
        with suppress(BlockingIOError), socket.create_connection(listener.getsockname()):
            await until(lambda: entered)
        door.pause()
        entered[0].close()
