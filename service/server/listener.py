"""A listening socket that can close without losing a connection."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable

from service.observability.logs import logger
from service.settings import is_loopback, reached_at

BOTH_FAMILIES = "::"  # as an address: every one of this machine, IPv4 too
BACKLOG = 4096  # connections not yet accepted; the system's limit may be lower
BURST = 2  # accepted per turn of the event loop, so that answers do not wait
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
FULL_PAUSE_S = 0.1  # without a free descriptor
SETTLE_S = 0.5  # for handshakes in progress when the socket closes: a long round trip
SETTLE_LOCAL_S = 0.1  # the same for callers on this machine
POLL_EVERY_S = 0.005

SO_BINDTOIFINDEX = 62  # include/uapi/asm-generic/socket.h; the socket module does not name it
NO_INTERFACE = 2**31 - 1  # no interface has this index


class Listener:
    """Calls ``on_connection`` with each accepted socket, non-blocking."""

    def __init__(
        self,
        listener: socket.socket,
        on_connection: Callable[[socket.socket], None],
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """``make_room`` is to free a descriptor when there is none; False: it cannot."""
        self._listener, self._on_connection = listener, on_connection
        self._make_room = make_room
        self._open = False

    def open(self) -> None:
        if not self._open and self._listener.fileno() != -1:
            self._open = True
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def pause(self) -> None:
        """Leave new connections in the backlog until ``open``."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._listener)

    async def close(self) -> None:
        """Accept connections that are already established, refuse new ones, and close.

        Closing a listening socket resets the connections in its backlog. So new ones are refused
        first, handshakes in progress get time to end, and the backlog is emptied.
        """
        try:
            refuse_new(self._listener)
        except OSError as error:  # before Linux 5.7: the last ones may be reset
            logger.warning("cannot refuse new connections while closing", reason=str(error))
        await asyncio.sleep(SETTLE_LOCAL_S if _is_local(self._listener) else SETTLE_S)
        # While paused, accepting must wait.
        await poll_until(lambda: self._open and not self._accept())
        self.pause()
        self._listener.close()

    def _accept(self) -> bool:
        """False: the backlog is empty."""
        for _ in range(BURST):
            if not self._open:
                return True
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return False
            except ConnectionAbortedError:  # closed by the client
                continue
            except OSError as error:
                if error.errno in NO_DESCRIPTOR and self._make_room():
                    return True  # its descriptor is free in the next turn of the loop
                logger.error("cannot accept: raise `ulimit -n`", reason=error.strerror)
                self.pause()
                asyncio.get_running_loop().call_later(FULL_PAUSE_S, self.open)
                return True
            connection.setblocking(False)
            self._on_connection(connection)
        return True


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Make a listening socket. OSError names the setting."""
    listener = bind(host, port, setting)
    try:
        start_listening(listener, setting)
    except OSError:
        listener.close()
        raise
    return listener


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Bind a socket, which refuses connections until ``start_listening``."""
    listener = None
    try:
        (family, *_, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        if is_loopback(host) and not is_loopback(str(address[0])):
            # Access rules were chosen for a loopback address.
            raise OSError(0, f"resolved to a loopback address and then to {address[0]}")
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != BOTH_FAMILIES))
        listener.bind(address[:2])
    except OSError as error:
        if listener is not None:
            listener.close()
        raise _cannot_listen(f"{host}:{port}", setting, error) from error
    listener.setblocking(False)
    return listener


def start_listening(listener: socket.socket, setting: str) -> None:
    """Accept connections. OSError: another process listens there."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _cannot_listen(f"{host}:{port}", setting, error) from error


def _cannot_listen(address: str, setting: str, error: OSError) -> OSError:
    reason = str(error.strerror).partition(" (")[0]  # without repeating the address
    return OSError(f"{address}: {reason}; set {setting} (0 picks a free one)")


def url_of(listener: socket.socket) -> str:
    """Return the URL at which this machine reaches it, also for port 0 and wildcards."""
    host, port = listener.getsockname()[:2]
    host = reached_at(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def refuse_new(listener: socket.socket) -> None:
    """Bind it to an interface that does not exist: Linux then answers a SYN as for a closed port.

    Handshakes in progress still complete, and the backlog stays. Unlike a socket filter this needs
    no capability.
    """
    listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def _is_local(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


async def poll_until(condition: Callable[[], bool]) -> None:
    """Poll for a condition that has no event, without a time limit."""
    while not condition():  # noqa: ASYNC110 — there is no event
        await asyncio.sleep(POLL_EVERY_S)
