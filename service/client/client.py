"""A client of the service: numpy in, numpy out, over the binary protocol.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.score(7, [17, 4, 99], deadline_ms=50)
        best_first = np.argsort(-answer.scores)

``api_key`` is one of the service's (``QIN_API_KEYS``); by default ``QIN_API_KEY`` of the
environment. If clicks and user records are accepted at the admin port, ``events_url`` and
``events_key`` are that port's URL and token.

Where the service's ids are texts, users and items are given as strings.

``AsyncClient`` is the same with ``await``. Both keep connections alive, end each call by its
deadline, and retry only what is safe to repeat (``service.client.retry``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypedDict, TypeVar, Unpack

from service.client.address import Address
from service.client.calls import (
    Features,
    Ids,
    InlineItem,
    Options,
    Scores,
    UserFeatures,
    click_call,
    delete_user_call,
    patch_user_call,
    put_user_call,
    read_click,
    read_inline_scores,
    read_ready,
    read_scores,
    read_written,
    ready_call,
    score_call,
    score_inline_call,
)
from service.client.retry import (
    Call,
    ClientError,
    Late,
    Pause,
    Refused,
    Reply,
    Steps,
    Unreachable,
    retry,
)
from service.client.transport import AsyncTransport, Transport

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Features",
    "InlineItem",
    "Late",
    "Refused",
    "Scores",
    "Unreachable",
    "UserFeatures",
]

T = TypeVar("T")
C = TypeVar("C", Transport, AsyncTransport)
LONGEST_MS = 86_400_000  # a day; sockets and polls take no time without bounds


class ClientOptions(TypedDict, total=False):
    """Options of a client."""

    model: str
    deadline_ms: float  # of a whole call, with its retries; a call may have its own
    retries: int
    api_key: str | None
    events_url: str | None  # for clicks and user records, if elsewhere
    events_key: str | None  # for these; by default the API key


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
        address, self.model = Address.parse("url", url), model
        events = address if events_url is None else Address.parse("events_url", events_url)
        self.url, self.events_url = address.url, events.url
        if not isinstance(retries, int) or retries < 0:
            raise ValueError(f"retries: must be an integer of at least 0, got {retries!r}")
        self._deadline_ms, self._retries = deadline_ms, retries
        key = os.environ.get("QIN_API_KEY") if api_key is None else api_key
        self._key = {**address.headers, **_bearer("api_key", key)}
        bearer = _bearer("events_key", key if events_key is None else events_key)
        self._events_key = {**events.headers, **bearer}

    def _write(self, call: Call, deadline_ms: float | None) -> Steps:
        """Plan a call at ``events_url``."""
        keyed = replace(call, headers={**call.headers, **self._events_key})
        return self._plan(keyed, deadline_ms)

    def _open(self, transport: Callable[[str], C]) -> tuple[C, C]:
        """Return the transports of scores and of writes: one if their URLs are equal."""
        opened = transport(self.url)
        return opened, opened if self.events_url == self.url else transport(self.events_url)

    def _plan(self, call: Call, deadline_ms: float | None = None) -> Steps:
        milliseconds = self._deadline_ms if deadline_ms is None else deadline_ms
        if not 0 < milliseconds <= LONGEST_MS:
            raise ValueError(
                f"deadline_ms: must be above 0 and at most {LONGEST_MS:,}, got {milliseconds!r}"
            )
        keyed = replace(call, headers={**self._key, **call.headers})
        return retry(keyed, milliseconds / 1e3, self._retries)


def _bearer(name: str, key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{name}: must be printable ASCII without spaces")
    return {"Authorization": f"Bearer {key}"}


class Client(_Settings):
    """Blocks. Threads may share one."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, **options)
        self._transport, self._for_events = self._open(Transport)

    def score(
        self,
        user_id: int | str,
        item_ids: Ids,
        *,
        deadline_ms: float | None = None,
        **options: Unpack[Options],
    ) -> Scores:
        """Click probabilities (C,), in the order of ``item_ids``. Refused, Late, Unreachable."""
        call = score_call(self.model, user_id, item_ids, **options)
        return self._run(self._plan(call, deadline_ms), read_scores, self._transport)

    def score_inline(
        self,
        user_id: int | str,
        candidates: Sequence[int | str | InlineItem],
        *,
        deadline_ms: float | None = None,
        **options: Unpack[Options],
    ) -> Scores:
        """As ``score``, where some candidates are items that are in no store."""
        call = score_inline_call(user_id, candidates, **options)
        return self._run(self._plan(call, deadline_ms), read_inline_scores, self._transport)

    def click(
        self,
        user_id: int | str,
        item_ids: Ids,
        *,
        key: str | None = None,
        deadline_ms: float | None = None,
    ) -> bool:
        """Append clicks, oldest first; False if they were accepted before under this ``key``.

        Without a key, after Unreachable or Late it is unknown whether they were accepted.
        """
        call = click_call(user_id, item_ids, key=key)
        return self._run(self._write(call, deadline_ms), read_click, self._for_events)

    def put_user(
        self, user_id: int | str, features: UserFeatures, *, deadline_ms: float | None = None
    ) -> None:
        """Create or replace a user's record: every user feature, by name. Refused 422 names one."""
        plan = self._write(put_user_call(user_id, features), deadline_ms)
        self._run(plan, read_written, self._for_events)

    def patch_user(
        self, user_id: int | str, features: UserFeatures, *, deadline_ms: float | None = None
    ) -> None:
        """Change the given features of a user's record. Refused 404: there is none."""
        plan = self._write(patch_user_call(user_id, features), deadline_ms)
        self._run(plan, read_written, self._for_events)

    def delete_user(self, user_id: int | str, *, deadline_ms: float | None = None) -> None:
        """Remove a user's record; the history stays. Refused 404: there is none."""
        plan = self._write(delete_user_call(user_id), deadline_ms)
        self._run(plan, read_written, self._for_events)

    def ready(self) -> bool:
        """Whether the service accepts requests."""
        try:
            return self._run(self._plan(ready_call()), read_ready, self._transport)
        except ClientError:
            return False

    def close(self) -> None:
        self._transport.close()
        self._for_events.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, plan: Steps, read: Callable[[Reply], T], transport: Transport) -> T:
        step = next(plan)
        try:
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = plan.send(None)
                else:
                    step = plan.send(transport.send(step))
        except StopIteration as end:
            return read(end.value)


class AsyncClient(_Settings):
    """``Client`` for one event loop, on which it must be made."""

    def __init__(self, url: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, **options)
        self._transport, self._for_events = self._open(AsyncTransport)

    async def score(
        self,
        user_id: int | str,
        item_ids: Ids,
        *,
        deadline_ms: float | None = None,
        **options: Unpack[Options],
    ) -> Scores:
        """As ``Client.score``."""
        call = score_call(self.model, user_id, item_ids, **options)
        return await self._run(self._plan(call, deadline_ms), read_scores, self._transport)

    async def score_inline(
        self,
        user_id: int | str,
        candidates: Sequence[int | str | InlineItem],
        *,
        deadline_ms: float | None = None,
        **options: Unpack[Options],
    ) -> Scores:
        """As ``Client.score_inline``."""
        call = score_inline_call(user_id, candidates, **options)
        return await self._run(self._plan(call, deadline_ms), read_inline_scores, self._transport)

    async def click(
        self,
        user_id: int | str,
        item_ids: Ids,
        *,
        key: str | None = None,
        deadline_ms: float | None = None,
    ) -> bool:
        """As ``Client.click``."""
        call = click_call(user_id, item_ids, key=key)
        return await self._run(self._write(call, deadline_ms), read_click, self._for_events)

    async def put_user(
        self, user_id: int | str, features: UserFeatures, *, deadline_ms: float | None = None
    ) -> None:
        """As ``Client.put_user``."""
        plan = self._write(put_user_call(user_id, features), deadline_ms)
        await self._run(plan, read_written, self._for_events)

    async def patch_user(
        self, user_id: int | str, features: UserFeatures, *, deadline_ms: float | None = None
    ) -> None:
        """As ``Client.patch_user``."""
        plan = self._write(patch_user_call(user_id, features), deadline_ms)
        await self._run(plan, read_written, self._for_events)

    async def delete_user(self, user_id: int | str, *, deadline_ms: float | None = None) -> None:
        """As ``Client.delete_user``."""
        plan = self._write(delete_user_call(user_id), deadline_ms)
        await self._run(plan, read_written, self._for_events)

    async def ready(self) -> bool:
        """As ``Client.ready``."""
        try:
            return await self._run(self._plan(ready_call()), read_ready, self._transport)
        except ClientError:
            return False

    async def close(self) -> None:
        await self._transport.close()
        await self._for_events.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _run(self, plan: Steps, read: Callable[[Reply], T], transport: AsyncTransport) -> T:
        step = next(plan)
        try:
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = plan.send(None)
                else:
                    step = plan.send(await transport.send(step))
        except StopIteration as end:
            return read(end.value)
