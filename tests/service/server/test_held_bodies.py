"""Bodies that are being received are bounded in sum."""

from __future__ import annotations

import time

import httpx
import pytest

from service.observability.metrics import Metrics
from service.server.connections import ConnectionLimits, ConnectionTracker
from service.settings import Settings
from tests.service.measure_held_bodies import MIB, measured
from tests.service.process import serving
from tests.service.server.test_connections import One, arrived
from tests.service.wire import PATIENT, POST, connected, only_response
from tests.service.world import World


def test_connections_that_hold_back_a_byte_cost_no_more_than_the_bound(world: World) -> None:
    """The small version of ``measure_held_bodies``."""
    found = measured(world, connections=200, bound=16 * MIB)
    assert found["holds"], found
    assert found["answered"][429] > 100


def test_a_body_that_arrives_meanwhile_is_taken_and_a_refused_one_may_come_again(
    world: World,
) -> None:
    body = b'{"user_id":1,"candidates":[%d]}' % world.ids[0]
    head = PATIENT + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with (
        serving(world.models, world.store, QIN_MAX_RECEIVING_BYTES="0") as service,
        connected(service) as heavy,
        connected(service) as light,
        connected(service) as newer,
    ):
        light.sendall(POST + b"Connection: close\r\n" + head % len(body) + body[:5])
        heavy.sendall(POST + head % MIB + b" " * (MIB * 3 // 4))
        with service.client() as client:
            wait_for(client, 'qin_connections{port="service",state="body"} 2.0')
        newer.sendall(POST + head % MIB + b" " * (MIB // 2))
        response = only_response(heavy)
        assert (response.status, response.problem) == (429, "over-capacity")
        assert response.headers["retry-after"] == "1"
        light.sendall(body[5:])
        assert only_response(light).status == 200


def wait_for(client: httpx.Client, line: str) -> None:
    """Among the metrics."""
    deadline = time.monotonic() + 30
    while line not in client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tracker(most: int) -> ConnectionTracker:
    settings = Settings(max_receiving_bytes=most, max_body_bytes=1024)
    return ConnectionTracker(ConnectionLimits.of(settings), Metrics())


def test_of_those_that_hold_much_the_one_there_the_longest_gives_way() -> None:
    here = tracker(10_000)
    small, *large = arrived(here, here.body, 6)
    here.hold(small, 100)
    for one in large[:4]:
        here.hold(one, 2450)
    assert not any(one.cuts for one in (small, *large))
    here.hold(large[4], 200)
    assert [one.cuts for one in (small, *large)] == [0, 1, 0, 0, 0, 0]
    assert here.held_bytes == 100 + 3 * 2450 + 200


def test_what_is_whole_or_gone_is_held_no_longer() -> None:
    here = tracker(10_000)
    whole, gone = arrived(here, here.body, 2)
    for one in (whole, gone):
        here.hold(one, 4000)
    here.hold(whole, 0)
    here.leave(gone)
    assert (here.held_bytes, here.held) == (0, {})


@pytest.mark.parametrize("most", [0, 500])
def test_one_whole_body_is_always_taken(most: int) -> None:
    here = tracker(most)
    (one,) = arrived(here, here.body, 1)
    here.hold(one, 1024)
    assert one.cuts == 0


def test_pages_are_given_back_once_after_a_burst() -> None:
    here = tracker(100 * MIB)
    (one,) = arrived(here, here.body, 1)
    assert isinstance(one, One)
    here.hold(one, 9 * MIB)
    assert not here.burst_is_over()
    here.hold(one, 0)
    assert [here.burst_is_over(), here.burst_is_over()] == [True, False]
    here.hold(one, 4 * MIB)
    here.hold(one, 0)
    assert not here.burst_is_over()  # too little to be worth it
