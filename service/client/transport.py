"""The client's transports: blocking over ``http.client``, asyncio over aiohttp."""

from __future__ import annotations

import http.client
import io
import select
import socket
import time
from collections import deque
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from service.client.retry import Broken, ClientError, Reply, Send

CHUNK = 1 << 16
LEAST_S = 1e-3  # to a socket 0 means not to wait at all


class Transport:
    """Keeps connections to one service. Threads may share it: each call has its own connection."""

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
            connection.sock.settimeout(max(ends - time.monotonic(), LEAST_S))
            connection.response_class = partial(_Response, ends)  # type: ignore[assignment]
            call = send.call
            path, body = self._at.path + call.path, call.body or None
            connection.request(call.method, path, body, dict(send.headers))
            response = connection.getresponse()
            content = bytearray()
            while chunk := response.read1(CHUNK):
                content += chunk
            if response.length:
                raise http.client.IncompleteRead(bytes(content), response.length)
            response.close()  # before Python 3.12, needed to use the connection again
            kept = not response.will_close and response.status >= 200  # after 101 it is no HTTP
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
        """Close idle connections; one in use is closed or kept by its call."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> http.client.HTTPConnection:
        """An idle connection that the service has not closed, or a new one."""
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


class AsyncTransport:
    """``Transport`` for one event loop, on which it must be made."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._prefix = str(URL(url)).rstrip("/")
        self._session = aiohttp.ClientSession(
            skip_auto_headers=["Accept-Encoding"], middlewares=[_once]
        )

    async def send(self, send: Send) -> Reply | Broken:
        if self._session.closed:
            raise ClientError(f"{self._url}: the client is closed")
        call = send.call
        try:
            async with self._session.request(
                call.method,
                URL(self._prefix + call.path, encoded=True),  # a user may be called ".."
                data=call.body or None,
                headers=send.headers,
                timeout=aiohttp.ClientTimeout(total=send.seconds),
                allow_redirects=False,
            ) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status, headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            return Broken(f"{self._url}: {_named(error)}", sent=False)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Broken(f"{self._url}: {_named(error)}", sent=True)

    async def close(self) -> None:
        await self._session.close()


def _named(error: Exception) -> str:
    """The error's class and words. Its repr may have the request's headers, and so the API key."""
    words = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return f"{type(error).__name__}: {' '.join(words.split())}".removesuffix(": ")


class _Interrupted(aiohttp.ClientError):
    """A connection ended without an answer."""


async def _once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a PUT or DELETE again by itself, which it does on these errors."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Interrupted(_named(error)) from error


def _readable(connection: http.client.HTTPConnection) -> bool:
    """Between two calls the only thing to read is the end of the connection."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


class _Response(http.client.HTTPResponse):
    """Ends by a time, however little arrives at a time, and passes interim responses (1xx) over."""

    def __init__(
        self, ends: float, sock: socket.socket, debuglevel: int = 0, method: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method)
        self.fp = io.BufferedReader(_Ending(self.fp.detach(), sock, ends))

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]  # read by begin if None
            super().begin()


class _Ending(io.RawIOBase):
    """A socket's file whose reads all end by one time."""

    def __init__(self, file: io.RawIOBase, sock: socket.socket, ends: float) -> None:
        self._file, self._sock, self._ends = file, sock, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if (left := self._ends - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
