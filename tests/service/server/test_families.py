"""IPv4 and IPv6 at one listening socket."""

from __future__ import annotations

import socket

import httpx
import pytest

from service.server.listener import listen
from tests.service.process import serving
from tests.service.world import World


def reaches(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "reached"),
    [("::", ["127.0.0.1", "::1"]), ("0.0.0.0", ["127.0.0.1"]), ("::1", ["::1"])],
)
def test_what_a_host_listens_on(host: str, reached: list[str]) -> None:
    with listen(host, 0, "QIN_PORT") as listener:
        port = listener.getsockname()[1]
        assert [a for a in ("127.0.0.1", "::1") if reaches(a, port)] == reached


def test_a_service_on_every_address_is_asked_and_drained_over_both(world: World) -> None:
    with serving(world.models, world.store, QIN_HOST="::") as service:
        body = {"user_id": 1, "candidates": world.ids[:3].tolist()}
        answers = [
            httpx.post(f"http://{host}:{service.port}/v1/score", json=body, trust_env=False)
            for host in ("127.0.0.1", "[::1]")
        ]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json()["scores"] == answers[1].json()["scores"]
        assert service.stop() == 0
