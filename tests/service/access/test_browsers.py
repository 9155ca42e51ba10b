"""Web pages of other sites, over real sockets: foreign Host and Origin, and what CORS allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from service.state import ServiceState
from tests.service.in_process import opened
from tests.service.live import listening
from tests.service.wire import Response, responses
from tests.service.world import World, make_world

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOP = "https://shop.example"
PROBES = ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"]
FOREIGN = "evil.example"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of this file's own: it is attacked."""
    return make_world(tmp_path_factory.mktemp("browsers"), items=40, users=3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def state(world: World) -> AsyncIterator[ServiceState]:
    """On loopback, with no names and no pages listed."""
    async with opened(world) as state:
        yield state


async def exchanged(port: int, sent: bytes) -> Response:
    """The only answer to bytes that ask for no more; 1xx are left out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(30):
        said = await reader.read()
    writer.close()
    (answer,) = [found for found in responses(said) if found.status >= 200]
    return answer


def request(line: str, *headers: str, body: Any = None, version: str = "1.1") -> bytes:
    content = b"" if body is None else orjson.dumps(body)
    more = [f"Content-Length: {len(content)}"] if content else []
    lines = [f"{line} HTTP/{version}", *headers, *more, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + content


async def asked(
    state: ServiceState, line: str, *headers: str, body: Any = None, version: str = "1.1"
) -> Response:
    async with listening(state) as port:
        line, *own = [text.replace("PORT", str(port)) for text in (line, *headers)]
        return await exchanged(port, request(line, *own, body=body, version=version))


@pytest.mark.parametrize("setting", [{}, {"host": "0.0.0.0", "allowed_hosts": "scores.example"}])
async def test_a_rebound_page_reads_writes_and_deletes_nothing(
    world: World, setting: dict[str, Any]
) -> None:
    item, user = int(world.ids[0]), 1
    async with opened(world, writes_on="service", events_on="service", **setting) as state:
        before = str(await state.store.history(user))
        host, json = f"Host: {FOREIGN}:PORT", "Content-Type: application/json"
        score = {"user_id": user, "candidates": [item]}
        for answer in (
            await asked(state, f"GET /v1/items/{item}", host),
            await asked(state, f"DELETE /v1/items/{item}", host),
            await asked(state, f"PATCH /v1/items/{item}", host, json, body={"likes_level": 1}),
            await asked(state, "POST /v1/events", host, json, body={"user_id": 1, "item_id": 1}),
            await asked(state, "POST /v1/score", host, json, body=score),
            await asked(state, "GET /v2/models/stats", host),
            await asked(state, "GET /metrics", host),
            await asked(state, "GET /openapi.json", host),
            await asked(state, "GET /docs", host),
            await asked(state, "GET /nowhere", host),
        ):
            assert answer.status == 403, answer
            assert b"QIN_ALLOWED_HOSTS" in answer.body
        assert str(await state.store.history(user)) == before
        kept = await asked(state, f"GET /v1/items/{item}", "Host: 127.0.0.1")
        assert kept.status == 200


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("GET /v2", ["Host: 127.0.0.1:PORT"], 200),
        ("GET /v2", ["Host: LOCALHOST.:PORT"], 200),
        ("GET /v2", ["Host: [::1]:PORT"], 200),
        ("GET /v2", [f"Host: {FOREIGN}"], 403),
        ("GET /v2", [f"Host: localhost.{FOREIGN}"], 403),
        ("GET /v2", ["Host: localhost,evil.example"], 403),
        ("GET http://evil.example/v2", ["Host: 127.0.0.1"], 403),
        ("GET http://127.0.0.1:PORT/v2", [f"Host: {FOREIGN}"], 403),
        ("GET http://localhost:8000/v2", ["Host: localhost:8000"], 200),
        ("GET http://[::1]:8000/v2", ["Host: [::1]:8000"], 200),
        ("GET http://u@evil.example/v2", ["Host: 127.0.0.1"], 400),
        ("GET http://evil.example\\@127.0.0.1:PORT/v2", ["Host: 127.0.0.1"], 400),
        *(
            (f"GET {probe}", [f"Host: {FOREIGN}", f"Origin: http://{FOREIGN}"], 200)
            for probe in PROBES
        ),
    ],
)
async def test_only_own_names_are_answered_on_a_loopback_port(
    state: ServiceState, line: str, headers: list[str], status: int
) -> None:
    assert (await asked(state, line, *headers)).status == status


async def test_a_host_in_the_request_target_is_looked_at_however_usual_the_header_is(
    state: ServiceState,
) -> None:
    async with listening(state) as port:
        for line, status in (("GET /v2", 200), ("GET http://evil.example/v2", 403)):
            answer = await exchanged(port, request(line, "Host: 127.0.0.1"))
            assert answer.status == status


async def test_a_request_of_http_1_0_without_a_host_is_no_browsers(state: ServiceState) -> None:
    assert (await asked(state, "GET /v2", version="1.0")).status == 200


async def test_beyond_loopback_any_name_is_answered_unless_names_are_given(world: World) -> None:
    async with opened(world, host="0.0.0.0") as state:
        assert (await asked(state, "GET /v2", "Host: anything.example")).status == 200
        origin = f"Origin: http://{FOREIGN}"
        answer = await asked(state, "GET /v2", "Host: anything.example", origin)
        assert answer.status == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origins",
    [
        [f"Origin: http://{FOREIGN}"],
        ["Origin: null"],
        ["Origin:"],
        ["Origin: http://127.0.0.1:PORT.evil.example"],
        ["Origin: http://localhost:PORT"],  # another name, though of the same service
        ["Origin: http://127.0.0.1:3000"],  # another program of this machine
        ["Origin: ftp://127.0.0.1:PORT"],
        ["Origin: http://127.0.0.1:PORT", f"Origin: http://{FOREIGN}"],
        ["Origin: http://127.0.0.1:PORT", "Origin: http://127.0.0.1:PORT"],
    ],
)
@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
async def test_a_page_of_another_site_is_refused(
    state: ServiceState, world: World, origins: list[str], content_type: str
) -> None:
    before = str(await state.store.history(2))
    heads = ["Host: 127.0.0.1:PORT", *origins, f"Content-Type: {content_type}"]
    click = {"user_id": 2, "item_id": 1}
    answer = await asked(state, "POST /v1/events", *heads, body=click)
    assert answer.status == 403
    assert b"QIN_CORS_ORIGINS" in answer.body
    assert "access-control-allow-origin" not in answer.headers
    assert str(await state.store.history(2)) == before
    score = {"user_id": 2, "candidates": world.ids[:2].tolist()}
    assert (await asked(state, "POST /v1/score", *heads, body=score)).status == 403


@pytest.mark.parametrize("scheme", ["http", "https"])  # TLS may end at a proxy in front
async def test_the_services_own_page_may_call_it(
    state: ServiceState, world: World, scheme: str
) -> None:
    heads = ["Host: localhost:PORT", f"Origin: {scheme}://localhost:PORT"]
    body = {"user_id": 1, "candidates": world.ids[:2].tolist()}
    assert (await asked(state, "POST /v1/score", *heads, body=body)).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_listed_page_asks_first_and_reads_every_answer(world: World, host: str) -> None:
    async with opened(world, cors_origins=SHOP, host=host) as state:
        heads = ["Host: 127.0.0.1:PORT", f"Origin: {SHOP}"]
        asks = ["Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-a, x-b"]
        allowed = await asked(state, "OPTIONS /v1/items/1", *heads, *asks)
        assert allowed.status == 204
        assert allowed.headers["access-control-allow-origin"] == SHOP
        assert "PUT" in allowed.headers["access-control-allow-methods"]
        assert allowed.headers["access-control-allow-headers"] == "x-a, x-b"
        body = {"user_id": 1, "candidates": world.ids[:2].tolist()}
        for answer, status in (
            (await asked(state, "POST /v1/score", *heads, body=body), 200),
            (await asked(state, "POST /v1/score", *heads, body={}), 422),
            (await asked(state, "GET /nowhere", *heads), 404),
            (await asked(state, "GET /livez", *heads), 200),
            (await asked(state, "POST /v1/score", *heads, "Content-Length: 9999999"), 413),
        ):
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert answer.headers["vary"] == "Origin"
            assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        others = await asked(state, "GET /v2", "Host: 127.0.0.1:PORT")
        assert others.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in others.headers


async def test_refusals_for_want_of_room_can_be_read_by_a_listed_page(world: World) -> None:
    async with opened(world, cors_origins=SHOP) as state:
        state.admission.has_room = lambda priority: False  # type: ignore[method-assign]
        heads = ["Host: 127.0.0.1:PORT", f"Origin: {SHOP}"]
        answer = await asked(state, "POST /v1/score", *heads, body={})
        assert answer.status == 429
        assert answer.headers["access-control-allow-origin"] == SHOP


async def test_another_page_that_asks_first_is_told_nothing(world: World) -> None:
    async with opened(world, cors_origins=SHOP) as state:
        asks = ["Access-Control-Request-Method: DELETE", f"Origin: http://{FOREIGN}"]
        for host in ("127.0.0.1", FOREIGN):
            answer = await asked(state, "OPTIONS /v1/items/1", f"Host: {host}", *asks)
            assert answer.status == 403
            assert "access-control-allow-methods" not in answer.headers
        listed = ["Access-Control-Request-Method: DELETE", f"Origin: {SHOP}"]
        rebound = await asked(state, "OPTIONS /v1/items/1", f"Host: {FOREIGN}", *listed)
        assert rebound.status == 403


async def test_a_header_name_that_is_none_is_not_repeated(world: World) -> None:
    async with opened(world, cors_origins=SHOP) as state:
        asks = ["Access-Control-Request-Method: PUT", 'Access-Control-Request-Headers: a"<b>']
        answer = await asked(state, "OPTIONS /v2", "Host: 127.0.0.1", f"Origin: {SHOP}", *asks)
        assert answer.headers["access-control-allow-headers"] == ""
