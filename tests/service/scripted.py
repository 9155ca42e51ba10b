"""A server that does to each request what the script says: answer, break off, or say nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

FAR = 30.0  # seconds
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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Scripted(listener.getsockname()[1], list(deeds))

        def serve(connection: socket.socket) -> None:
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

        def accept() -> None:
            with suppress(OSError):
                while not over.is_set():
                    connection = listener.accept()[0]
                    server.connections += 1
                    thread = threading.Thread(target=serve, args=[connection], daemon=True)
                    thread.start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            over.set()
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
