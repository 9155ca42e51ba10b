"""A client of the service: numpy in, numpy out, over the binary protocol.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.score(7, [17, 4, 99], deadline_ms=50)
        best_first = np.argsort(-answer.scores)

``api_key`` is one of the service's (``QIN_API_KEYS``); without it ``QIN_API_KEY`` of the
environment, if there is one. Where clicks are taken at the admin port, ``events_url`` and
``events_key`` are that port's URL and token.

``AsyncClient`` is the same with ``await``. Both keep their connections, keep to the deadline
whatever happens, and send again only what is safe to send again (``service.client.retry``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TypedDict, TypeVar, Unpack
from urllib.parse import urlsplit

import aiohttp
from numpy.typing import ArrayLike

from service.client.calls import (
    Options,
    Scores,
    click_call,
    read_click,
    read_scores,
    ready_call,
    score_call,
)
from service.client.connections import Connections
from service.client.retry import (
    Broken,
    Call,
    ClientError,
    Late,
    Pause,
    Refused,
    Reply,
    Send,
    Steps,
    Unreachable,
    attempts,
)

__all__ = ["AsyncClient", "Client", "ClientError", "Late", "Refused", "Scores", "Unreachable"]

T = TypeVar("T")


class ClientOptions(TypedDict, total=False):
    """Of a client, beside the service's URL."""

    model: str
    deadline_ms: float  # of a whole call, with its retries; a call may have its own
    retries: int
    api_key: str | None
    events_url: str | None  # for clicks, if elsewhere
    events_key: str | None  # for clicks; without one the API key


class _Settings:
    def __init__(
        self,
        url: str,
        *,
        model: str = "qin",
        deadline_ms: float = 1000,
        retries: int = 2,
        api_key: str | None = None,
        events_url: str | None = None,
        events_key: str | None = None,
    ) -> None:
        self.url, self.model = _checked("url", url), model
        self.events_url = self.url if events_url is None else _checked("events_url", events_url)
        self._deadline_ms, self._retries = deadline_ms, retries
        key = os.environ.get("QIN_API_KEY") if api_key is None else api_key
        self._key = _bearer("api_key", key)
        self._events_key = _bearer("events_key", key if events_key is None else events_key)

    def _click(self, user_id: int, item_ids: ArrayLike, key: str | None) -> Call:
        call = click_call(user_id, item_ids, key=key)
        return replace(call, headers={**call.headers, **self._events_key})

    def _plan(self, call: Call, deadline_ms: float | None) -> Steps:
        milliseconds = self._deadline_ms if deadline_ms is None else deadline_ms
        if not milliseconds > 0:
            raise ValueError(f"deadline_ms: above 0, not {milliseconds!r}")
        keyed = replace(call, headers={**self._key, **call.headers})
        return attempts(keyed, milliseconds / 1e3, self._retries)


def _checked(name: str, url: str) -> str:
    at = urlsplit(url)
    if at.scheme not in ("http", "https") or not at.hostname or at.query or at.fragment:
        raise ValueError(f"{name}: http://HOST[:PORT][/PREFIX], not {url!r}")
    return url.rstrip("/")


def _bearer(name: str, key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{name}: printable ASCII without spaces")
    return {"Authorization": f"Bearer {key}"}


class Client(_Settings):
    """Blocks. Any number of threads may share one."""

    def score(
        self,
        user_id: int,
        item_ids: ArrayLike,
        *,
        deadline_ms: float | None = None,
        **options: Unpack[Options],
    ) -> Scores:
        """Click probabilities (C,), in the order asked. Refused, Late, Unreachable."""
        call = score_call(self.model, user_id, item_ids, **options)
        return self._run(call, read_scores, deadline_ms)

    def click(
        self,
        user_id: int,
        item_ids: ArrayLike,
        *,
        key: str | None = None,
        deadline_ms: float | None = None,
    ) -> bool:
        """Append clicks, oldest first; False if they were taken earlier under this ``key``.

        Without a key, after Unreachable or Late nobody knows whether they were taken.
        """
        call = self._click(user_id, item_ids, key)
        return self._run(call, read_click, deadline_ms, self._for_events)

    def ready(self) -> bool:
        """Whether the service may be sent requests."""
        try:
            return self._run(ready_call(), lambda reply: True, None)
        except ClientError:
            return False

    def close(self) -> None:
        self._connections.close()
        self._for_events.close()

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, **options)
        self._connections = Connections(self.url)
        elsewhere = self.events_url != self.url
        self._for_events = Connections(self.events_url) if elsewhere else self._connections

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        call: Call,
        read: Callable[[Reply], T],
        deadline_ms: float | None,
        connections: Connections | None = None,
    ) -> T:
        plan = self._plan(call, deadline_ms)
        step, by = next(plan), connections or self._connections
        try:
            while True:
                if isinstance(step, Send):
                    step = plan.send(by.send(step))
                else:
                    time.sleep(step.seconds)
                    step = plan.send(None)
        except StopIteration as end:
            return read(end.value)


class AsyncClient(_Settings):
    """For one event loop, on which it must be made."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, **options)
        self._session = aiohttp.ClientSession(skip_auto_headers=["Accept-Encoding"])

    async def score(
        self,
        user_id: int,
        item_ids: ArrayLike,
        *,
        deadline_ms: float | None = None,
        **options: Unpack[Options],
    ) -> Scores:
        """As ``Client.score``."""
        call = score_call(self.model, user_id, item_ids, **options)
        return await self._run(call, read_scores, deadline_ms)

    async def click(
        self,
        user_id: int,
        item_ids: ArrayLike,
        *,
        key: str | None = None,
        deadline_ms: float | None = None,
    ) -> bool:
        """As ``Client.click``."""
        call = self._click(user_id, item_ids, key)
        return await self._run(call, read_click, deadline_ms, self.events_url)

    async def ready(self) -> bool:
        """As ``Client.ready``."""
        try:
            return await self._run(ready_call(), lambda reply: True, None)
        except ClientError:
            return False

    async def close(self) -> None:
        await self._session.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(
        self,
        call: Call,
        read: Callable[[Reply], T],
        deadline_ms: float | None,
        url: str | None = None,
    ) -> T:
        plan = self._plan(call, deadline_ms)
        step = next(plan)
        try:
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = plan.send(None)
                else:
                    step = plan.send(await self._send(step, url or self.url))
        except StopIteration as end:
            return read(end.value)

    async def _send(self, send: Send, url: str) -> Reply | Broken:
        call, timeout = send.call, aiohttp.ClientTimeout(total=send.seconds)
        try:
            async with self._session.request(
                call.method,
                url + call.path,
                data=call.body or None,
                headers=send.headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status, headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            return Broken(f"{url}: {error!r}", sent=False)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Broken(f"{url}: {error!r}", sent=True)
