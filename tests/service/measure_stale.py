"""Whether an answer is older than a confirmed change. ``python -m tests.service.measure_stale``.

Two workers share an item table. Items are changed one after the other (PATCH, DELETE, PUT); right
after each confirmation, on another connection, the item is scored, which must know. Meanwhile
other connections score the same items, so that both workers fetch them again all the time.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import numpy as np
import orjson
import typer

from tests.feature_store.redis_servers import standalone
from tests.service.process import Service, serving
from tests.service.processes.test_workers import ready_lines, wait_until
from tests.service.world import World, make_world, on_another_store

WORKERS = 2
LEVELS = 10
JSON = {"Content-Type": "application/json"}
PATIENT = {**JSON, "X-Deadline-Ms": "10000"}


@dataclass(slots=True)
class Round:
    """One item, changed and asked for in turn."""

    service: Service
    item: int
    whole: dict[str, Any] = field(default_factory=dict)  # all its features
    expected: list[float] = field(default_factory=list)  # its score at each level

    async def score(self, session: aiohttp.ClientSession, **more: Any) -> float | None:
        """None when it is unknown."""
        body = {"user_id": 1, "candidates": [self.item], "history": [], **more}
        url = f"{self.service.url}/v1/score"
        async with session.post(url, data=orjson.dumps(body), headers=PATIENT) as answer:
            assert answer.status == 200, await answer.text()
            found: float | None = (await answer.json())["scores"][0]
            return found

    async def learn(self, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{self.service.url}/v1/items/{self.item}") as answer:
            self.whole = await answer.json()
        for level in range(LEVELS):
            score = await self.score(session, context={"likes_level": [level]})
            assert score is not None
            self.expected.append(score)

    async def change(self, session: aiohttp.ClientSession, number: int) -> float | None:
        """By turns put, patched and deleted; what it must then score."""
        url, level = f"{self.service.url}/v1/items/{self.item}", number % LEVELS
        if number % 4 == 3:
            request = session.delete(url, headers=JSON)
        elif number % 4 == 0:
            whole = orjson.dumps({**self.whole, "likes_level": level})
            request = session.put(url, data=whole, headers=JSON)
        else:
            some = orjson.dumps({"likes_level": level})
            request = session.patch(url, data=some, headers=JSON)
        async with request as answer:
            assert answer.status == 204, await answer.text()
        return None if number % 4 == 3 else self.expected[level]


def _is(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return abs(found - expected) < 1e-6


async def measured(
    service: Service, items: list[int], changes: int, hammering: int
) -> dict[str, Any]:
    """``items`` are changed side by side; each has connections of its own."""
    wrong, asked = Counter[str](), 0
    stop = asyncio.Event()

    async with AsyncExitStack() as stack:

        async def connection() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(limit=1)
            return await stack.enter_async_context(aiohttp.ClientSession(connector=connector))

        async def hammer(mine: list[Round]) -> None:
            session, random = await connection(), np.random.default_rng(0)
            while not stop.is_set():
                await mine[int(random.integers(len(mine)))].score(session)

        async def change_and_ask(mine: Round) -> None:
            nonlocal asked
            writer, readers = await connection(), [await connection() for _ in range(2 * WORKERS)]
            for number in range(changes // len(items)):
                expected = await mine.change(writer, number)
                # The writer's own connection in turn, and others, which are with either worker.
                reader = (writer, *readers)[number % (1 + len(readers))]
                found = await mine.score(reader)
                asked += 1
                if not _is(found, expected):
                    wrong[("PUT", "PATCH", "PATCH", "DELETE")[number % 4]] += 1

        rounds = [Round(service, item) for item in items]
        session = await connection()
        for one in rounds:
            await one.learn(session)
        tasks = [asyncio.create_task(hammer(rounds)) for _ in range(hammering)]
        await asyncio.gather(*(change_and_ask(one) for one in rounds))
        stop.set()
        await asyncio.gather(*tasks)
    return {
        "workers": WORKERS,
        "changes": asked,
        "connections_scoring_meanwhile": hammering,
        "older_than_confirmed": wrong.total(),
        "by_method": dict(wrong),
    }


def measure(world: World, changes: int, hammering: int) -> dict[str, Any]:
    variables = {
        "QIN_WORKERS": str(WORKERS),
        "QIN_THREADS": "1",
        "QIN_LOG_FORMAT": "json",
        "QIN_STORE_TIMEOUT_MS": "5000",  # a busy machine is no fault of the store
    }
    with serving(world.models, world.store, **variables) as service:
        wait_until(lambda: ready_lines(service) == WORKERS, "not all workers are ready")
        items = world.ids[:4].tolist()
        return asyncio.run(measured(service, items, changes, hammering))


def main(
    changes: Annotated[int, typer.Option(help="How many, a third of them DELETE or PUT.")] = 10_000,
    hammering: Annotated[int, typer.Option(help="Connections that score meanwhile.")] = 8,
    redis: Annotated[bool, typer.Option(help="On Redis in place of LMDB.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when one answer was older than a change that had been confirmed before."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), items=200, users=5)
        if redis:
            with standalone(Path(folder) / "redis") as server:
                there = on_another_store(world, f"redis://127.0.0.1:{server.port}")
                found = {"store": "redis", **measure(there, changes, hammering)}
        else:
            found = {"store": "lmdb", **measure(world, changes, hammering)}
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:32} {v}" for k, v in found.items()))
    raise typer.Exit(int(found["older_than_confirmed"] > 0))


if __name__ == "__main__":
    typer.run(main)
