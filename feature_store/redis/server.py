"""One Redis server: its links, its breaker, and the watch that brings both back.

No request ever connects or probes. A watch does that in the background: from the first failure on
it asks the server itself, so that the breaker opens well within a second even when requests are
rare; while the breaker is open it asks once a second, and the first answer in time closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import Connection

from feature_store.errors import StoreError, StoreRefused, StoreUnavailable
from feature_store.parquet.oddities import Oddities, repeat
from feature_store.redis.breaker import Breaker
from feature_store.redis.connection import Link, Parts
from feature_store.redis.errors import NOT_SERVING, LinkLost, translated

REQUESTS, BULK = 0, 1  # lanes: a scan, a load or a WAIT for replicas never delays a request
SUSPECT_PROBE_S = 0.05
OPEN_PROBE_S = 1.0
CONNECT_PATIENCE_S = 0.5  # of the watch; a request waits no longer than its own budget
_PING: Parts = ("PING",)


class Endpoint:
    """A server at one address."""

    def __init__(
        self,
        place: str,
        connection: Callable[[], Connection],
        budget_s: float,
        oddities: Oddities,
    ) -> None:
        self.place = place
        self._connection, self._budget_s = connection, budget_s
        self._loop = asyncio.get_running_loop()
        self._links: list[Link | None] = [None, None]
        self._breaker = Breaker(self._loop.time)
        self._why: StoreError = StoreUnavailable(f"{place}: not connected yet")
        self._suspect, self._settled = asyncio.Event(), asyncio.Event()
        self._closed = False
        self._suspect.set()
        self._oddities = oddities
        self._watching = asyncio.create_task(
            repeat(f"{place}: watch", self._watch, oddities, OPEN_PROBE_S)
        )

    @property
    def healthy(self) -> bool:
        """Connected, and not known to fail."""
        return self._settled.is_set() and not self._breaker.open and not self._closed

    @property
    def breaker_open(self) -> bool:
        return self._breaker.open

    async def ready(self) -> None:
        """Return once connected. Raises what keeps the server from answering, within a second."""
        await self._settled.wait()
        if not self.healthy:
            raise self._refusal()

    async def call(
        self,
        commands: Sequence[Parts],
        deadline: float,
        *,
        lane: int = REQUESTS,
        again: bool = True,
    ) -> list[Any]:
        """The replies, errors among them, before ``deadline`` or StoreUnavailable.

        ``again`` allows a second try when the connection breaks: for what may be done twice.
        """
        sent = False
        while True:
            try:
                link = await self._link(lane, deadline)
            except StoreUnavailable as refusal:
                refusal.unknown = sent
                raise
            try:
                replies = await link.exchange(commands, deadline)
            except StoreUnavailable as error:
                sent = error.unknown = sent or error.unknown
                self._failed(error)
                if not (again and isinstance(error, LinkLost)) or self._closed:
                    raise
                again = False
                continue
            busy = next((reply for reply in replies if isinstance(reply, NOT_SERVING)), None)
            if busy is None:
                self._breaker.succeeded()
            else:
                self._failed(translated(busy, self.place))
            return replies

    async def _link(self, lane: int, deadline: float) -> Link:
        """The lane's link, waited for until ``deadline`` while the watch is connecting."""
        while True:
            if self._breaker.open or self._closed:
                raise self._refusal()
            link = self._links[lane]
            if link is not None and link.lost is None:
                return link
            self._lost()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._settled.wait()
            except TimeoutError:
                raise self._refusal() from None

    def _refusal(self) -> StoreError:
        kind = StoreRefused if isinstance(self._why, StoreRefused) else StoreUnavailable
        return kind(str(self._why))

    def _failed(self, error: StoreError) -> None:
        self._why = error
        if self._breaker.failed():
            self._settled.set()  # whoever waits for a connection is told
        self._suspect.set()

    def _lost(self) -> None:
        """A link has broken: until the watch has made another, requests wait for it."""
        if not self._breaker.open:
            self._settled.clear()
        self._suspect.set()

    async def _watch(self) -> None:
        await self._suspect.wait()
        self._suspect.clear()
        while not await self._probe():
            await asyncio.sleep(SUSPECT_PROBE_S)
            if self._breaker.open:
                await asyncio.sleep(OPEN_PROBE_S - SUSPECT_PROBE_S)

    async def _probe(self) -> bool:
        """Connect what is lost and ask on every lane: an answer in time settles every doubt."""
        try:
            if self._breaker.open:
                await self._drop("given up")
            for lane, link in enumerate(self._links):
                if link is None or link.lost is not None:
                    self._links[lane] = await self._reconnected(link)
            for link in self._links:
                assert link is not None
                [pong] = await link.exchange([_PING], self._loop.time() + self._budget_s)
                if isinstance(pong, Exception):
                    raise translated(pong, self.place)
        except StoreError as error:
            self._failed(error)
            return False
        except Exception as error:
            self._oddities.note(f"{self.place}: probe", error, unexpected=True)
            self._failed(StoreUnavailable(f"{self.place}: {type(error).__name__}: {error}"))
            return False
        self._breaker.succeeded()
        self._settled.set()
        return True

    async def _reconnected(self, link: Link | None) -> Link:
        if link is not None:
            await link.close()
        return await Link.open(
            self._connection(), self.place, CONNECT_PATIENCE_S, self._lost, self._oddities
        )

    async def _drop(self, why: str) -> None:
        links, self._links = self._links, [None, None]
        for link in links:
            if link is not None:
                await link.close(why)

    async def close(self) -> None:
        self._closed = True
        self._why = StoreUnavailable(f"{self.place}: the store is closed")
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        await self._drop("the store is closed")
        self._settled.set()
