"""A listening socket whose connections we accept ourselves, so that it can close and lose none."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable

from service.logs import logger
from service.until import until

BACKLOG = 4096  # connections that wait to be accepted; the system's own limit may be lower
BURST = 2  # accepted in one turn of the event loop: answers are not to wait for a crowd
FULL_PAUSE_S = 0.1  # without a descriptor to spare
SETTLE_S = 0.1  # that a handshake under way has when the door closes

SO_ATTACH_FILTER = 26
# Classic BPF over the TCP header: byte 13 holds the flags, 2 is SYN; 0 drops, anything else keeps.
DROP_SYN = (
    (0x30, 0, 0, 13),  # A ← byte 13
    (0x45, 0, 1, 0x02),  # A & SYN?
    (0x06, 0, 0, 0),  # yes: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # no: keep
)


class Door:
    """Calls ``enter`` with each accepted socket, non-blocking."""

    def __init__(self, listener: socket.socket, enter: Callable[[socket.socket], None]) -> None:
        self._listener, self._enter = listener, enter
        self._open = False

    def open(self) -> None:
        if not self._open and self._listener.fileno() != -1:
            self._open = True
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def pause(self) -> None:
        """Connections wait in the system's queue until ``open`` is called again."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._listener)

    async def close(self) -> None:
        """Whoever is connected comes in; whoever knocks from now on is refused.

        Closing a listening socket resets what waits in its queue. So the handshakes of newcomers
        are ignored first (they try again and are refused), those under way get time to end, and
        the queue is emptied.
        """
        try:
            _ignore_newcomers(self._listener)
        except OSError as error:  # not Linux: a connection made in the last instant may be reset
            logger.warning("newcomers cannot be ignored while closing", reason=str(error))
        await asyncio.sleep(SETTLE_S)
        # While it is paused there is no room for them yet.
        await until(lambda: self._open and not self._accept())
        self.pause()
        self._listener.close()

    def _accept(self) -> bool:
        """Whether there may be more."""
        for _ in range(BURST):
            if not self._open:
                return True
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return False
            except ConnectionAbortedError:  # gone again already
                continue
            except OSError as error:
                logger.error("cannot accept: raise `ulimit -n`", reason=error.strerror)
                self.pause()
                asyncio.get_running_loop().call_later(FULL_PAUSE_S, self.open)
                return False
            connection.setblocking(False)
            self._enter(connection)
        return True


def listen(host: str, port: int, setting: str) -> socket.socket:
    """OSError names the setting."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # without the address a second time
        raise OSError(f"{host}:{port}: {reason}; set {setting} (0 picks a free one)") from error
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where this machine finds it, whatever was asked for: port 0, all addresses."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — only compared
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ignore_newcomers(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    header = struct.pack("HP", len(DROP_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
