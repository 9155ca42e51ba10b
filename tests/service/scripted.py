"""A server that does to each request what the script says: answer, break off, or say nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

FAR, DRIP_S = 30.0, 0.02  # seconds
BREAK, SILENT = b"", None  # close without an answer; keep it waiting
Deed = bytes | None


def reply(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} As scripted", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class Scripted:
    """What it was asked, and where it is."""

    port: int
    deeds: list[Deed]
    requests: list[bytes] = field(default_factory=list)  # their heads
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def scripted(deeds: Sequence[Deed]) -> Iterator[Scripted]:
    """A connection is kept after an answer, and closed after BREAK or the last deed."""
    over = threading.Event()
    server = Scripted(0, list(deeds))

    def serve(connection: socket.socket) -> None:
        server.connections += 1
        with connection, suppress(OSError):
            while head := _read(connection):
                server.requests.append(head)
                if not server.deeds:
                    return
                deed = server.deeds.pop(0)
                if deed is SILENT:
                    over.wait(FAR)
                if not deed:
                    return
                connection.sendall(deed)
                if not server.deeds:
                    return

    with _listening(serve) as server.port:
        try:
            yield server
        finally:
            over.set()


@contextmanager
def dripping(begin: bytes, more: bytes) -> Iterator[str]:
    """The URL of a server that answers with ``begin``, and then ``more`` again and again."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            _read(connection)
            connection.sendall(begin)
            while not over.wait(DRIP_S):
                connection.sendall(more)

    with _listening(serve) as port:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            over.set()


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port whose connections ``serve`` gets, each in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    threading.Thread(target=serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _read(connection: socket.socket) -> bytes:
    """A request's head, its body read too; empty at the end."""
    connection.settimeout(FAR)
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := connection.recv(65_536)):
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"),
        0,
    )
    while len(body) < length:
        body += connection.recv(65_536)
    return head
