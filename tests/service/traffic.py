"""Requests that keep coming, and the outcome of each: answered, refused a connection, or lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

import httptools
import orjson

from tests.service.process import Service
from tests.service.world import World

CANDIDATES = 64
PATIENCE_S = 60.0
PROBE = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def request_of(content: bytes, headers: bytes = b"") -> bytes:
    return b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\n%sContent-Length: %d\r\n\r\n%s" % (
        headers,
        len(content),
        content,
    )


def contents(world: World, count: int = 200, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    users, ids = list(world.users), world.ids.tolist()
    return [
        orjson.dumps(
            {"user_id": chance.choice(users), "candidates": chance.choices(ids, k=CANDIDATES)}
        )
        for _ in range(count)
    ]


@dataclass(slots=True)
class Outcomes:
    """``lost``: requests on an accepted connection that got no answer, by when they were sent."""

    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0  # connections that were not accepted
    closed: int = 0  # idle connections that had been closed when their next request was due
    lost: list[tuple[float, str]] = field(default_factory=list)

    def add(self, other: Outcomes) -> None:
        self.statuses += other.statuses
        self.refused += other.refused
        self.closed += other.closed
        self.lost += other.lost


class Answer:
    """Parses one response."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.whole = self.last = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"connection" and value.lower() == b"close":
            self.last = True

    def on_message_complete(self) -> None:
        self.whole = True


class Caller:
    """One client: asks, waits, asks again over the same connection while it may."""

    def __init__(self, service: Service, bodies: list[bytes], *, keeps: bool, pause_s: float):
        """``keeps``: its connection, for the next request. Without ``bodies`` it asks /livez."""
        self._service, self._bodies, self._keeps = service, bodies, keeps
        self._pause_s, self._chance = pause_s, random.Random(id(self))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.outcomes = Outcomes()

    async def run(self, over: asyncio.Event) -> None:
        """Until ``over``, or nobody listens any more."""
        try:
            while not over.is_set() and await self._connected():
                await self._ask()
                await asyncio.sleep(self._pause_s * 2 * self._chance.random())
        finally:
            self._hang_up()

    async def _connected(self) -> bool:
        if self._streams is not None and self._streams[0].at_eof():
            self.outcomes.closed += 1
            self._hang_up()
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(
                    self._service.host, self._service.port
                )
            except ConnectionRefusedError:
                self.outcomes.refused += 1
                return False
            except ConnectionError as error:  # made, and reset before it could be used
                self.outcomes.lost.append((monotonic(), f"{type(error).__name__}: {error}"))
                return False
        return True

    async def _ask(self) -> None:
        assert self._streams is not None
        reader, writer = self._streams
        answer, sent = Answer(), monotonic()
        headers = b"" if self._keeps else b"Connection: close\r\n"
        try:
            if self._bodies:
                writer.write(request_of(self._chance.choice(self._bodies), headers))
            else:
                writer.write(PROBE)
            async with asyncio.timeout(PATIENCE_S):
                while not answer.whole:
                    data = await reader.read(65_536)
                    if not data:
                        raise EOFError("closed without an answer")
                    answer.parser.feed_data(data)
        except (OSError, EOFError) as error:
            self.outcomes.lost.append((sent, f"{type(error).__name__}: {error}"))
            self._hang_up()
            return
        self.outcomes.statuses[answer.parser.get_status_code()] += 1
        if answer.last or not self._keeps:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass(slots=True)
class Traffic:
    """Callers at work."""

    callers: list[Caller]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def begin(
        cls, service: Service, world: World, *, keeping: int, fresh: int, probing: int = 0
    ) -> Traffic:
        """``keeping`` callers keep their connections, ``fresh`` ones take a new one each time.

        ``probing`` ones ask /livez without a pause, each time over a new connection.
        """
        bodies = contents(world)
        callers = [
            Caller(service, bodies, keeps=number < keeping, pause_s=0.01)
            for number in range(keeping + fresh)
        ]
        callers += [Caller(service, [], keeps=False, pause_s=0) for _ in range(probing)]
        traffic = cls(callers)
        traffic.tasks = [asyncio.create_task(one.run(traffic.over)) for one in callers]
        return traffic

    async def end(self) -> Outcomes:
        """Of all, when the last answer is there."""
        self.over.set()
        return await self.outcomes()

    async def outcomes(self) -> Outcomes:
        """When nobody listens any more."""
        await asyncio.gather(*self.tasks)
        total = Outcomes()
        for caller in self.callers:
            total.add(caller.outcomes)
        return total
