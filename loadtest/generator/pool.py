"""Connection pool of a generator: keep-alive, bounded, opened on demand, used in rotation."""

from __future__ import annotations

import socket
from collections import deque

from loadtest.generator.columns import Reason
from loadtest.generator.connection import Connection, State
from loadtest.generator.poller import Poller


class ConnectionPool:
    """Up to ``limit`` connections to one address.

    Free ones are used in rotation, so that all server processes behind one port get requests.
    Idle ones are closed after ``keep_alive`` seconds, before the server does: closing as the next
    request is sent would count as a failure of the server.
    """

    def __init__(self, poller: Poller, host: str, port: int, limit: int, keep_alive: float) -> None:
        """``host``: a numeric address."""
        family, _, _, _, address = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)[0]
        self._poller, self._family = poller, family
        self._address = (str(address[0]), int(address[1]))
        self._limit, self._keep_alive = limit, keep_alive
        self._free: deque[Connection] = deque()
        self._retired: list[Connection] = []
        self.all: dict[int, Connection] = {}
        self.connecting = 0
        self.opened = 0

    def take(self, now: float) -> Connection | None:
        """Return a free connection, or None."""
        while self._free:
            connection = self._free.popleft()
            if connection.state is not State.IDLE:
                continue  # closed by the server meanwhile
            if now - connection.idle_since < self._keep_alive:
                return connection
            self.discard(connection)
        return None

    def give(self, connection: Connection, now: float) -> None:
        connection.state = State.IDLE
        connection.request, connection.complete = -1, False
        connection.idle_since = now
        self._free.append(connection)

    def open(self) -> Connection | None:
        """Begin a handshake; None at the limit."""
        if len(self.all) >= self._limit:
            return None
        connection = Connection(self._poller, self._address, self._family)
        self.all[connection.fd] = connection
        self.connecting += 1
        self.opened += 1
        return connection

    def established(self, connection: Connection) -> bool:
        self.connecting -= 1
        return connection.fault is Reason.NONE and connection.connected()

    def discard(self, connection: Connection) -> None:
        if connection.state is State.CLOSED:
            return
        if connection.state is State.CONNECTING and connection.fault is not Reason.CONNECT:
            self.connecting -= 1
        connection.retire()
        del self.all[connection.fd]
        self._retired.append(connection)

    def sweep(self, now: float) -> None:
        """Close connections that have been idle too long."""
        while self._free:
            oldest = self._free[0]
            if oldest.state is State.IDLE and now - oldest.idle_since < self._keep_alive:
                return
            self._free.popleft()
            if oldest.state is State.IDLE:
                self.discard(oldest)

    def close_retired(self) -> None:
        """Close retired sockets; after a batch of events, so that it sees no reused descriptor."""
        for connection in self._retired:
            connection.sock.close()
        self._retired.clear()

    def close(self) -> None:
        for connection in list(self.all.values()):
            self.discard(connection)
        self.close_retired()
