"""What a client sends is bounded in bytes, in number and in time, on both ports."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import orjson
import pytest

from tests.service.measure_slow_clients import KINDS
from tests.service.process import Service, serving
from tests.service.wire import (
    GET,
    HALF_BODY,
    HALF_HEADERS,
    PATIENT,
    POST,
    connected,
    only_response,
    responses,
    until_closed,
)
from tests.service.world import World

MAX_HEADER_BYTES, MAX_HEADERS, MAX_BODY = 4096, 20, 8192
BIT_S = 0.05  # between the bytes of a trickle
KEEP_ALIVE_S = 1


@pytest.fixture(scope="module")
def hasty(world: World) -> Iterator[Service]:
    """It waits for nobody."""
    variables = {
        "QIN_HEADERS_TIMEOUT_MS": "500",
        "QIN_BODY_TIMEOUT_MS": "500",
        "QIN_ANSWER_TIMEOUT_MS": "500",
        "QIN_KEEP_ALIVE_S": str(KEEP_ALIVE_S),
        "QIN_MAX_HEADER_BYTES": str(MAX_HEADER_BYTES),
        "QIN_MAX_HEADERS": str(MAX_HEADERS),
        "QIN_MAX_BODY_BYTES": str(MAX_BODY),
        "QIN_MAX_IDLE_CONNECTIONS": "10",
    }
    with serving(world.models, world.store, **variables) as service:
        yield service


def trickle(connection: socket.socket, piece: bytes) -> bytes:
    """A piece after the other until the other end has enough; what it said."""
    connection.settimeout(BIT_S)
    said = b""
    for _ in range(600):
        with suppress(OSError):  # closed for writing; what it said before can still be read
            connection.sendall(piece)
        try:
            data = connection.recv(65_536)
        except TimeoutError:
            continue
        except ConnectionResetError:
            data = b""
        if not data:
            return said
        said += data
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("admin", [False, True])
def test_a_silent_connection_is_closed_without_a_word(hasty: Service, admin: bool) -> None:
    with connected(hasty, admin=admin) as connection:
        assert until_closed(connection) == b""


@pytest.mark.parametrize("admin", [False, True])
def test_half_sent_headers_are_a_408(hasty: Service, admin: bool) -> None:
    with connected(hasty, admin=admin) as connection:
        connection.sendall(HALF_HEADERS)
        response = only_response(connection)
    assert (response.status, response.problem) == (408, "request-timeout")
    assert response.headers["connection"] == "close"


def test_a_half_sent_body_is_a_408_with_its_request_id(hasty: Service) -> None:
    with connected(hasty) as connection:
        connection.sendall(HALF_BODY)
        response = only_response(connection)
    assert (response.status, response.problem) == (408, "request-timeout")
    assert response.headers["x-request-id"] == "half"


@pytest.mark.parametrize("begun", [POST + b"X-Slow: ", HALF_BODY], ids=["headers", "body"])
def test_a_trickle_is_no_way_around_the_limit(hasty: Service, begun: bytes) -> None:
    with connected(hasty) as connection:
        connection.sendall(begun)
        (response,) = responses(trickle(connection, b"x"))
    assert response.status == 408


def test_a_body_that_misses_the_deadline_is_a_504(hasty: Service) -> None:
    with connected(hasty) as connection:
        connection.sendall(POST + b"X-Deadline-Ms: 50\r\nContent-Length: 100\r\n\r\n{")
        response = only_response(connection)
    assert (response.status, response.problem) == (504, "deadline-passed")


def test_an_idle_connection_is_closed_after_a_while(hasty: Service) -> None:
    said = b""
    while not said:  # a test machine may be slower than it allows between connecting and asking
        with connected(hasty) as connection:
            connection.sendall(GET)
            began = time.monotonic()
            said = until_closed(connection)
    assert [one.status for one in responses(said)] == [200]
    assert time.monotonic() - began > 0.5 * KEEP_ALIVE_S


def test_the_connection_longest_idle_makes_room(hasty: Service) -> None:
    with httpx.Client(base_url=hasty.url, trust_env=False) as counting, ExitStack() as stack:
        before, deadline = _cut(counting, "crowded"), time.monotonic() + 60
        while _cut(counting, "crowded") == before:
            assert time.monotonic() < deadline
            connection = stack.enter_context(connected(hasty))
            with suppress(OSError):
                connection.sendall(GET)
                connection.recv(65_536)


def _cut(client: httpx.Client, why: str) -> float:
    line = f'qin_connections_cut_total{{why="{why}"}} '
    found = [x for x in client.get("/metrics").text.splitlines() if x.startswith(line)]
    return float(found[0].removeprefix(line)) if found else 0.0


TOO_MUCH: dict[str, tuple[bytes, int, str]] = {
    "a long header": (
        POST + b"X: %s\r\n\r\n" % (b"x" * MAX_HEADER_BYTES),
        431,
        "headers-too-large",
    ),
    "a header without end": (POST + b"X: %s" % (b"x" * 300_000), 431, "headers-too-large"),
    "many headers": (POST + b"X: y\r\n" * MAX_HEADERS + b"\r\n", 431, "headers-too-large"),
    "a million headers": (POST + b"X: y\r\n" * 100_000, 431, "headers-too-large"),
    "a long path": (b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * 5000), 431, "headers-too-large"),
    "a path without end": (b"GET /%s" % (b"x" * 300_000), 431, "headers-too-large"),
    "a long body": (
        POST + b"Content-Length: %d\r\n\r\n%s" % (300_000, b"x" * 300_000),
        413,
        "too-large",
    ),
    "a long body for a path without one": (
        GET[:-2] + b"Content-Length: %d\r\n\r\n%s" % (300_000, b"x" * 300_000),
        413,
        "too-large",
    ),
    "an announcement": (POST + b"Content-Length: 99999999999999\r\n\r\n", 413, "too-large"),
    "chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n%s\r\n" % (b"x" * 1024) * 200,
        413,
        "too-large",
    ),
    "a chunk a byte": (
        POST + PATIENT + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000,
        413,
        "too-large",
    ),
    "trailers": (
        POST + PATIENT + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: " + b"x" * 600_000,
        431,
        "headers-too-large",
    ),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not-http"),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, "not-http"),
    "no length": (POST + b"Content-Length: x\r\n\r\n", 400, "not-http"),
    "a bad chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "not-http"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_and_the_refusal_can_be_read(hasty: Service, name: str) -> None:
    sent, status, problem = TOO_MUCH[name]
    with connected(hasty) as connection:
        connection.sendall(sent)  # all of it: whoever does not stop sending reads it too
        response = only_response(connection)
    assert (response.status, response.problem) == (status, problem)
    assert response.headers["connection"] == "close"


def test_the_same_in_small_pieces(hasty: Service) -> None:
    with connected(hasty) as connection:
        connection.sendall(POST + b"X: ")
        (response,) = responses(trickle(connection, b"x" * 1500))
    assert response.status == 431


def test_headers_just_below_the_limit_pass(hasty: Service) -> None:
    ours = b"Connection: close\r\nX: %s\r\n\r\n" % (b"x" * (MAX_HEADER_BYTES - 100))
    with connected(hasty) as connection:
        connection.sendall(GET[:-2] + ours)
        assert only_response(connection).status == 200


def test_requests_sent_ahead_are_answered_in_order(service: Service) -> None:
    ahead = 8
    requests = [GET[:-2] + b"X-Request-Id: %d\r\n\r\n" % number for number in range(ahead)]
    requests[-1] = requests[-1][:-2] + b"Connection: close\r\n\r\n"
    with connected(service) as connection:
        connection.sendall(b"".join(requests))
        found = responses(until_closed(connection))
    assert [one.headers["x-request-id"] for one in found] == [str(n) for n in range(ahead)]


def test_too_many_requests_sent_ahead_are_not_read(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(GET * 200)
        found = responses(until_closed(connection))
    assert 1 < len(found) < 200
    assert all(one.status == 200 for one in found)
    assert found[-1].headers["connection"] == "close"


def test_a_client_that_does_not_read_its_answers_is_cut(hasty: Service) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect((hasty.host, hasty.port))
        with pytest.raises(ConnectionError):
            _send_for_ever(connection, ask)


def _send_for_ever(connection: socket.socket, piece: bytes) -> None:
    while True:
        connection.sendall(piece)
        time.sleep(0.001)


def test_100_continue_is_said_before_the_body(service: Service) -> None:
    body = orjson.dumps({"user_id": 1, "candidates": [1]})
    headers = b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with connected(service) as connection:
        connection.sendall(POST + PATIENT + headers % len(body))
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert only_response(connection).status == 200


@pytest.mark.parametrize("path", ["/nothing", "/livez", "/v1/events", "/v2/models/other/infer"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_an_answer_in_place_of_100_continue_closes(
    service: Service, path: str, framing: str
) -> None:
    """Whether the body still comes is the client's choice: what follows could be either."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"
    with connected(service) as connection:
        connection.sendall(head.encode())
        answer = only_response(connection)
        assert answer.status in (404, 405, 415)
        assert answer.headers["connection"] == "close"


def test_what_waits_for_100_continue_and_sends_all_the_same_keeps_its_connection(
    service: Service,
) -> None:
    head = b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
    with connected(service) as connection:
        connection.sendall(head + b"Content-Length: 3\r\n\r\nabc" + GET)
        connection.shutdown(socket.SHUT_WR)
        answers = [answer.status for answer in responses(until_closed(connection))]
        assert answers == [404, 200]


def test_healthy_requests_are_answered_beside_slow_ones(
    service: Service, client: httpx.Client, world: World
) -> None:
    with ExitStack() as stack:
        for at_once, _ in 20 * list(KINDS.values()):
            stack.enter_context(connected(service)).sendall(at_once)
        for _ in range(50):
            body = {"user_id": 1, "candidates": world.ids[:20].tolist()}
            assert client.post("/v1/score", json=body).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/items/{item}"),
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/qin"),
        *("/v2/models/qin/ready", "/v2/models/qin/config", "/v2/models/qin/versions/small-1"),
        *("/v2/models/qin/stats", "/v2/models/stats"),
    ],
)
def test_head_says_what_get_would_without_a_body(
    client: httpx.Client, world: World, path: str
) -> None:
    path = path.replace("{item}", str(world.ids[0]))
    answer = client.head(path)
    assert answer.status_code == client.get(path).status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/admin/models", "/admin/models/small-1", "/docs"])
def test_head_is_answered_at_the_admin_port(service: Service, path: str) -> None:
    with service.admin() as admin:
        answer = admin.head(path)
        assert answer.status_code == admin.get(path).status_code == 200
        assert answer.content == b""
        assert int(answer.headers["content-length"]) > 0


def test_head_is_not_in_the_document(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path, operations in paths.items() if "head" in operations]
