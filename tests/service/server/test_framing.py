"""Where a request ends is decided by its length or its chunks, and by nothing else."""

from __future__ import annotations

import socket

import httpx
import orjson
import pytest

from service.errors import HeadersTooLarge, NotHttp, ServiceError, TooLarge
from service.server.connections import ConnectionLimits
from service.server.framing import Framing, RequestHead, parse_head
from service.settings import Settings
from tests.service import measure_framing
from tests.service.framing_cases import INNER, at_every_boundary
from tests.service.process import Service
from tests.service.wire import Response, connected, responses, until_closed
from tests.service.world import World

LIMITS = ConnectionLimits.of(Settings(max_header_bytes=1024, max_headers=10, max_body_bytes=4096))
SMUGGLED = b"DELETE /v1/items/%d HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: SMUGGLED\r\n\r\n"
UPGRADES = ("h2c", "websocket", "TLS/1.0", "HTTP/2.0", "foo")
ROUTES = ("/v1/score", "/v1/events", "/v2/models/qin/infer", "/livez", "/nothing")


def framed(body: bytes, chunked: bool) -> bytes:
    """The rest of a request: framing, the end of the headers, the body."""
    if chunked:
        return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def head(method: str, path: str, *lines: str) -> bytes:
    first = f"{method} {path} HTTP/1.1"
    return "\r\n".join([first, "Host: 127.0.0.1", *lines, ""]).encode()


def asked(service: Service, *segments: bytes) -> list[Response]:
    """All answers to what is sent in these segments, and then no more."""
    with connected(service) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for segment in segments:
            connection.sendall(segment)
        connection.shutdown(socket.SHUT_WR)
        return responses(until_closed(connection))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_body_behind_an_upgrade_is_never_a_request(
    service: Service, client: httpx.Client, world: World, upgrade: str, chunked: bool
) -> None:
    item = int(world.ids[7])
    for route in ROUTES:
        lines = (
            "Connection: Upgrade, HTTP2-Settings",
            f"Upgrade: {upgrade}",
            "HTTP2-Settings: AAMA",
        )
        begin, rest = head("POST", route, *lines), framed(SMUGGLED % item, chunked)
        end = rest.index(b"\r\n\r\n") + 4
        for segments in ((begin + rest,), (begin + rest[:end], rest[end:])):
            found = asked(service, *segments)
            assert len(found) == 1, (route, segments)
            assert found[0].headers["x-request-id"] != "SMUGGLED"
    assert client.get(f"/v1/items/{item}").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_request_that_offers_an_upgrade_is_answered_with_its_body(
    service: Service, world: World, upgrade: str, chunked: bool
) -> None:
    content = {"user_id": 1, "candidates": world.ids[:3].tolist()}
    lines = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMA")
    request = head("POST", "/v1/score", *lines, "X-Deadline-Ms: 10000")
    request += framed(orjson.dumps(content), chunked)
    for segments in ((request,), (request[:-20], request[-20:]), (request * 2,)):
        for response in asked(service, *segments):
            assert response.status == 200
            assert len(orjson.loads(response.body)["scores"]) == 3


def test_trailers_are_no_headers(service: Service, world: World) -> None:
    body = orjson.dumps({"user_id": 1, "candidates": world.ids[:3].tolist()})
    request = head("POST", "/v1/score", "X-Request-Id: ours", "X-Deadline-Ms: 10000")
    trailers = b"X-Request-Id: theirs\r\nX-Deadline-Ms: 0\r\nX-Priority: none\r\nHost: b\r\n\r\n"
    (response,) = asked(service, request + framed(body, True)[:-2] + trailers)
    assert (response.status, response.headers["x-request-id"]) == (200, "ours")


@pytest.mark.parametrize("framing", ["Content-Length: %d", "Transfer-Encoding: chunked"])
def test_framing_in_trailers_never_takes_effect(
    service: Service, world: World, framing: str
) -> None:
    """What comes next is a request, and no body of so many bytes or in chunks."""
    body = orjson.dumps({"user_id": 1, "candidates": world.ids[:3].tolist()})
    request = head("POST", "/v1/score", "X-Deadline-Ms: 10000") + framed(body, True)[:-2]
    after = head("GET", "/livez", "X-Request-Id: after") + b"\r\n"
    trailer = (framing % len(after) if "%" in framing else framing).encode() + b"\r\n\r\n"
    for segments in ((request + trailer + after,), (request, trailer, after)):
        found = asked(service, *segments)
        assert [response.status for response in found] == [200, 200]
        assert found[1].headers["x-request-id"] == "after"


REFUSED = {
    "a coding that is not chunked": (b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
    "chunked twice": (b"Host: a\r\nTransfer-Encoding: chunked, chunked\r\n", 501),
    "two codings": (b"Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
    "identity": (b"Host: a\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n", 501),
    "no coding": (b"Host: a\r\nTransfer-Encoding:\r\n", 501),
    "no Host": (b"", 400),
    "two Hosts": (b"Host: a\r\nHost: a\r\n", 400),
    "a Host that is none": (b"Host: a b\r\n", 400),
    "a length beside chunks": (
        b"Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        400,
    ),
    "a length twice": (b"Host: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n", 400),
    "a list of lengths": (b"Host: a\r\nContent-Length: 2, 2\r\n", 400),
    "a folded header": (b"Host: a\r\nX: y\r\n z\r\n", 400),
    "whitespace before the colon": (b"Host: a\r\nContent-Length : 2\r\n", 400),
    "LF alone": (b"Host: a\nContent-Length: 2\r\n", 400),
    "CR alone": (b"Host: a\rContent-Length: 2\r\n", 400),
    "NUL": (b"Host: a\r\nX: \0\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_parsers_might_read_differently_is_refused_and_closed(
    service: Service, name: str
) -> None:
    lines, status = REFUSED[name]
    inner = b"2\r\n{}\r\n0\r\n\r\n" + INNER
    with connected(service) as connection:
        connection.sendall(b"POST /v1/score HTTP/1.1\r\n" + lines + b"\r\n" + inner)
        (response,) = responses(until_closed(connection))
    assert response.status == status
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /livez\r\n",
        b"GET /livez HTTP/0.9\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/1.1\n",
        b"GET /livez HTTP/1.1\r\nHost: a\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + INNER,
        b"\x16\x03\x01",
        b"\r\n",
    ],
)
def test_what_is_no_http_1_1_is_refused_at_once(service: Service, sent: bytes) -> None:
    with connected(service) as connection:
        connection.sendall(sent)
        (response,) = responses(until_closed(connection))
    assert (response.status, response.problem) == (400, "not-http")


def test_http_1_0_without_a_host_is_answered(service: Service) -> None:
    (response,) = asked(service, b"GET /livez HTTP/1.0\r\n\r\n")
    assert (response.status, response.headers["connection"]) == (200, "close")


def test_the_length_of_chunks_extensions_and_trailers_is_bounded(service: Service) -> None:
    begin = (
        head("POST", "/v1/score", "X-Deadline-Ms: 10000", "Transfer-Encoding: chunked") + b"\r\n"
    )
    for rest in (
        b"1;" + b"x" * 20_000 + b"\r\n",
        (b"1;" + b"x" * 2000 + b"\r\n{\r\n") * 20,
        b"0\r\nX: " + b"x" * 20_000,
        b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ):
        with connected(service) as connection:
            connection.sendall(begin + rest)
            (response,) = responses(until_closed(connection))
        assert response.status == 431


@pytest.mark.parametrize("seed", [1, 2])
async def test_requests_are_those_that_h11_finds(seed: int) -> None:
    """The small version of ``measure_framing``."""
    found = await measure_framing.compared(1000, seed)
    assert found["first"] == []
    assert found["valid"] > 20
    assert found["upgrades"] > 100


SEQUENCES = {
    "a body that is a request, behind an Upgrade": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n%b" % (len(INNER), INNER),
    "the same in chunks, with a trailer": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n"
    b"Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nX: y\r\n\r\n"
    % (len(INNER), INNER),
    "requests sent ahead": b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPUT /b HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 2\r\n\r\n{}GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + INNER,
}


@pytest.mark.parametrize("name", SEQUENCES)
async def test_so_they_are_at_every_boundary_of_a_segment(name: str) -> None:
    judge, data = measure_framing.Judge(), SEQUENCES[name]
    for segments in ([data], *at_every_boundary(data), [data[i : i + 1] for i in range(len(data))]):
        assert await judge.difference(segments, valid=True) is None


class Heard:
    discards = False

    def __init__(self) -> None:
        self.heads, self.bodies, self.complete = list[RequestHead](), list[bytes](), 0

    def on_request(self, head: RequestHead) -> None:
        self.heads.append(head)

    def on_body(self, piece: bytes) -> None:
        self.bodies.append(piece)

    def on_complete(self) -> None:
        self.complete += 1


def heard(*segments: bytes) -> Heard:
    framing, found = Framing(LIMITS), Heard()
    for segment in segments:
        framing.feed(segment, found)
    return found


def test_a_whole_body_is_not_copied_and_chunks_of_a_segment_come_in_one_piece() -> None:
    begin = b"POST / HTTP/1.1\r\nHost: a\r\n"
    assert heard(begin + framed(b"x" * 99, False)).bodies == [b"x" * 99]
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 99 + b"0\r\n\r\n"
    assert heard(begin + chunks).bodies == [b"x" * 99]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 1000), HeadersTooLarge),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10 + b"\r\n", HeadersTooLarge),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1001\r\n", TooLarge),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\nx\r\n" * 600,
            TooLarge,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 900 + b"\0\r\n\r\n", NotHttp),
    ],
)
def test_limits_hold_in_whatever_segments(sent: bytes, error: type[ServiceError]) -> None:
    for size in (len(sent), 7, 1):
        with pytest.raises(error):
            heard(*(sent[i : i + size] for i in range(0, len(sent), size)))


def test_a_length_of_any_number_of_digits_is_a_number() -> None:
    for digits in ("9" * 900, "0" * 900):
        found = parse_head(
            f"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {digits}\r\n\r\n".encode()
        )
        assert found.length is not None
        assert found.length > 2**40


def test_a_target_of_absolute_form_is_its_path() -> None:
    found = parse_head(b"GET HTTP://a:80/b%20?c HTTP/1.1\r\nHost: a:80\r\n\r\n")
    assert (found.authority, found.path, found.query) == (b"a:80", b"/b%20", b"c")
    assert parse_head(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path == b"*"


@pytest.mark.parametrize(
    "authority",
    ["a", "a:", "a:80", "A.b-c_d~e", "a%20b", "a,b;c=d", "127.0.0.1:80", "[::1]", "[::1]:80"],
)
def test_an_authority_of_a_host_and_a_port_is_kept(authority: str) -> None:
    found = parse_head(f"GET http://{authority}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert found.authority == authority.encode()


@pytest.mark.parametrize(
    "authority",
    [
        "evil.com\\@127.0.0.1",
        "user@127.0.0.1",
        "user:password@127.0.0.1:80",
        "@127.0.0.1",
        "evil.com\\127.0.0.1",
        "evil.com|127.0.0.1",
        'a"b',
        "<a>",
        "{a}",
        "a^b",
        "a`b",
        "a%2",
        "a%zz",
        "a:b",
        "a:80:80",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]a",
        "[a|b]",
        ":80",
    ],
)
def test_an_authority_that_two_parsers_might_read_differently_is_refused(
    service: Service, authority: str
) -> None:
    line = f"GET http://{authority}/livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    (response,) = asked(service, line.encode() + INNER)
    assert (response.status, response.problem) == (400, "not-http")
