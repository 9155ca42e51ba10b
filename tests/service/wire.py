"""HTTP as bytes on a socket, right and wrong."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from tests.service.process import Service

PATIENCE_S = 30.0
GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HALF_HEADERS = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: hal"
PATIENT = b"X-Deadline-Ms: 10000\r\n"  # so that it is not the deadline that ends it
HALF_BODY = POST + PATIENT + b'X-Request-Id: half\r\nContent-Length: 100\r\n\r\n{"user_id":1,'


@contextmanager
def connected(service: Service, *, admin: bool = False) -> Iterator[socket.socket]:
    port = service.admin_port if admin else service.port
    with socket.create_connection((service.host, port), timeout=PATIENCE_S) as connection:
        yield connection


@dataclass(frozen=True, slots=True)
class Response:
    """One of those that came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        """The last word of its type; every member that a problem has is there."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        content: dict[str, Any] = orjson.loads(self.body)
        assert content["status"] == self.status
        assert content["request_id"]
        assert content["detail"]
        return str(content["type"]).rpartition(":")[2]


def until_closed(connection: socket.socket) -> bytes:
    """Everything that comes until the other end closes; a reset after something came is an end."""
    said = b""
    while True:
        try:
            piece = connection.recv(65_536)
        except ConnectionResetError:
            assert said
            return said
        if not piece:
            return said
        said += piece


def responses(data: bytes) -> list[Response]:
    """Each with a Content-Length."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
        assert match is not None, first
        headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
        size = int(headers.get("content-length", 0))
        found.append(Response(int(match[1]), headers, rest[:size]))
        data = rest[size:]
    return found


def next_response(connection: socket.socket) -> Response:
    """As much as one, of a connection that stays open."""
    said = b""
    while b"\r\n\r\n" not in said or len(said) < _size_of_first(said):
        piece = connection.recv(65_536)
        assert piece, said
        said += piece
    (response,) = responses(said)
    return response


def _size_of_first(said: bytes) -> int:
    head, _, _ = said.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return len(head) + 4 + (int(length[1]) if length else 0)


def only_response(connection: socket.socket) -> Response:
    """The one that comes before the connection is closed."""
    (response,) = responses(until_closed(connection))
    return response
