"""A listening socket whose connections we accept ourselves, so that it can close and lose none."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable

from service.observability.logs import logger
from service.server.polling import until
from service.settings import is_loopback

BACKLOG = 4096  # connections that wait to be accepted; the system's own limit may be lower
BURST = 2  # accepted in one turn of the event loop: answers are not to wait for a crowd
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
FULL_PAUSE_S = 0.1  # without a descriptor to spare
SETTLE_S = 0.5  # that a handshake under way has when the socket closes: a long round trip
SETTLE_LOCAL_S = 0.1  # the same, where callers are on this machine

SO_BINDTOIFINDEX = 62  # include/uapi/asm-generic/socket.h; the socket module does not name it
NO_INTERFACE = 2**31 - 1  # no interface has this index


class Door:
    """Calls ``enter`` with each accepted socket, non-blocking."""

    def __init__(
        self,
        listener: socket.socket,
        enter: Callable[[socket.socket], None],
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """``make_room``: close a connection where there is no descriptor to spare; whether one
        could be."""
        self._listener, self._enter, self._make_room = listener, enter, make_room
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
        """Accept every connection that was made, refuse those that begin from now on, and close.

        Closing a listening socket resets the connections in its queue. So new ones are refused
        first, handshakes under way get time to end, and the queue is emptied.
        """
        try:
            refuse_new(self._listener)
        except OSError as error:  # before Linux 5.7: one made in the last instant may be reset
            logger.warning("new connections cannot be refused while closing", reason=str(error))
        await asyncio.sleep(SETTLE_LOCAL_S if _is_local(self._listener) else SETTLE_S)
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
                if error.errno in NO_DESCRIPTOR and self._make_room():
                    return True  # its descriptor is free in the next turn of the event loop
                logger.error("cannot accept: raise `ulimit -n`", reason=error.strerror)
                self.pause()
                asyncio.get_running_loop().call_later(FULL_PAUSE_S, self.open)
                return True
            connection.setblocking(False)
            self._enter(connection)
        return True


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket that takes connections. OSError names the setting."""
    listener = bind(host, port, setting)
    try:
        begin_to_listen(listener, setting)
    except OSError:
        listener.close()
        raise
    return listener


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A socket that has its address, and refuses connections until ``begin_to_listen``."""
    listener = None
    try:
        (family, *_, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        if is_loopback(host) and not is_loopback(str(address[0])):
            # Who may write and ask was decided for a loopback address.
            raise OSError(0, f"resolved to a loopback address and then to {address[0]}")
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address[:2])
    except OSError as error:
        if listener is not None:
            listener.close()
        raise _cannot_listen(f"{host}:{port}", setting, error) from error
    listener.setblocking(False)
    return listener


def begin_to_listen(listener: socket.socket, setting: str) -> None:
    """OSError: another process began first."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _cannot_listen(f"{host}:{port}", setting, error) from error


def _cannot_listen(address: str, setting: str, error: OSError) -> OSError:
    reason = str(error.strerror).partition(" (")[0]  # without the address a second time
    return OSError(f"{address}: {reason}; set {setting} (0 picks a free one)")


def url_of(listener: socket.socket) -> str:
    """Where this machine finds it, whatever was asked for: port 0, all addresses."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — only compared
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def refuse_new(listener: socket.socket) -> None:
    """Bind it to an interface that does not exist: Linux then answers a SYN as for a closed port.

    The handshakes that it has begun are found by their addresses and end as they would have; what
    waits to be accepted stays. Unlike a socket filter this takes no capability.
    """
    listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def _is_local(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback
