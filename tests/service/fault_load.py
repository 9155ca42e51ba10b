"""Score requests in an open loop, and what became of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import httptools
import numpy as np
import orjson

from tests.service.process import Service
from tests.service.world import World

CANDIDATES = 64
BODIES = 500
WHOLE = "whole"
HEAD = (
    b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)


@dataclass(slots=True)
class Stretch:
    """What was answered in one stretch of time."""

    times: list[float] = field(default_factory=list)  # seconds
    outcomes: Counter[str] = field(default_factory=Counter)

    def percentile(self, q: float) -> float:
        """Milliseconds."""
        return round(1e3 * float(np.percentile(self.times, q)), 3)

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": len(self.times),
            "p50_ms": self.percentile(50),
            "p99_ms": self.percentile(99),
            "worst_ms": self.percentile(100),
            "outcomes": dict(self.outcomes),
        }


class Asker:
    """A keep-alive connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._body, self._whole = b"", False

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._whole = True

    async def ask(self, content: bytes, path: bytes = b"/v1/score") -> tuple[int, Any]:
        """Status and body of an answer."""
        if self._streams is None or self._streams[0].at_eof():  # it was idle for too long
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        parser = httptools.HttpResponseParser(self)
        self._body, self._whole = b"", False
        head = HEAD % (path, len(content))
        writer.write(head + content)
        while not self._whole:
            data = await reader.read(65_536)
            assert data, "the service closed the connection"
            parser.feed_data(data)
        return parser.get_status_code(), orjson.loads(self._body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()

    def abort(self) -> None:
        """Gone at once, whatever was under way."""
        if self._streams is not None:
            self._streams[1].transport.abort()


class Load:
    """Requests for this service, Poisson arrivals, timed from their scheduled start."""

    def __init__(self, service: Service, world: World, rate: float) -> None:
        self._rate, self._random, self._port = rate, random.Random(1), service.port
        self._idle = list[Asker]()
        users, ids = list(world.users), world.ids.tolist()
        self._bodies = [
            orjson.dumps(
                {
                    "user_id": self._random.choice(users),
                    "candidates": self._random.choices(ids, k=CANDIDATES),
                }
            )
            for _ in range(BODIES)
        ]

    async def run(self, seconds: float, stretch: Stretch) -> Stretch:
        await self.until(asyncio.create_task(asyncio.sleep(seconds)), stretch)
        return stretch

    async def until(self, over: asyncio.Task[Any], stretch: Stretch) -> None:
        """Ask until that is done, then wait for the last answers."""
        tasks = list[asyncio.Task[None]]()
        scheduled = perf_counter()
        while not over.done():
            scheduled += self._random.expovariate(self._rate)
            await asyncio.sleep(max(0, scheduled - perf_counter()))
            tasks.append(asyncio.create_task(self._one(scheduled, stretch)))
        await asyncio.gather(*tasks)

    async def whole_again(self) -> float:
        """Seconds until answers are whole."""
        began = perf_counter()
        while (await self.run(0.05, Stretch())).outcomes.keys() - {WHOLE}:
            assert perf_counter() - began < 30, "it never recovered"
        return perf_counter() - began

    async def _one(self, scheduled: float, stretch: Stretch) -> None:
        asker = self._idle.pop() if self._idle else Asker(self._port)
        status, answer = await asker.ask(self._random.choice(self._bodies))
        stretch.times.append(perf_counter() - scheduled)
        self._idle.append(asker)
        said = "+".join(answer["degraded"]) or WHOLE if status == 200 else answer["type"][16:]
        stretch.outcomes[said] += 1

    def close(self) -> None:
        for asker in self._idle:
            asker.close()
