"""The blocking client's connections: kept between calls, looked at before they are used again."""

from __future__ import annotations

import http.client
import select
import time
from collections import deque
from urllib.parse import urlsplit

from service.client.retry import Broken, Reply, Send

CHUNK = 1 << 16
LEAST_S = 1e-3  # a socket takes 0 for "do not wait at all"


class Connections:
    """To one service. Any number of threads may use it: each call has a connection to itself."""

    def __init__(self, url: str) -> None:
        self._at = urlsplit(url)
        self._idle: deque[http.client.HTTPConnection] = deque()

    def send(self, send: Send) -> Reply | Broken:
        connection, ends = self._take(), time.monotonic() + send.seconds
        sent = kept = False
        try:
            if connection.sock is None:
                connection.timeout = send.seconds
                connection.connect()
            sent = True
            _allow(connection, ends)
            call = send.call
            path, body = self._at.path + call.path, call.body or None
            connection.request(call.method, path, body, dict(send.headers))
            response = connection.getresponse()
            content = bytearray()
            while chunk := response.read1(CHUNK):  # each wait is bounded, and so is their sum
                content += chunk
                _allow(connection, ends)
            if response.length:
                raise http.client.IncompleteRead(bytes(content), response.length)
            response.close()  # or the connection cannot be used again, before Python 3.12
            kept = not response.will_close
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, bytes(content))
        except (OSError, http.client.HTTPException) as error:
            return Broken(f"{self._at.netloc}: {error!r}", sent)
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Those that are idle; one that is in use is closed or kept by its call."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> http.client.HTTPConnection:
        """One that the service has not closed meanwhile, or a new one."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.sock is not None and not _readable(connection):
                return connection
            connection.close()
        assert self._at.hostname is not None
        if self._at.scheme == "https":
            return http.client.HTTPSConnection(self._at.hostname, self._at.port)
        return http.client.HTTPConnection(self._at.hostname, self._at.port)


def _readable(connection: http.client.HTTPConnection) -> bool:
    """Between two calls there is nothing to read but the end."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _allow(connection: http.client.HTTPConnection, ends: float) -> None:
    """Time until ``ends`` for the next wait. (A reply that ends the connection has no socket.)"""
    if connection.sock is not None:
        connection.sock.settimeout(max(ends - time.monotonic(), LEAST_S))
