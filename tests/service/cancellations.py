"""Requests cancelled at random moments: does anybody get somebody else's answer?

    python -m tests.service.cancellations [--requests 100000] [--json]

A service process whose table is smaller than the catalogue, so that slots change hands all the
time, on a real Redis. Clients go away at random moments; every answer that does come is compared
with what the network itself says of that user and those candidates.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import typer
from numpy.typing import NDArray

from tests.feature_store.redis_servers import standalone
from tests.service.fault_load import Asker
from tests.service.in_process import PATIENCE_MS
from tests.service.parity import TOLERANCE
from tests.service.process import serving
from tests.service.world import World, make_world, on_another_store

CANDIDATES = 20
AT_A_TIME = 32
CANCELLED = 0.5  # of the requests
WITHIN_S = 0.03  # of their beginning
TABLE_SHARE = 0.8  # of the catalogue

Ask = Callable[[dict[str, Any]], Awaitable[tuple[int, Any]]]  # a body -> status and answer


@dataclass(frozen=True, slots=True)
class Truth:
    """What the network says of every user, and of one without a history."""

    world: World
    users: list[int]
    scores: NDArray[np.float32]  # (users + 1, items)

    @classmethod
    def of(cls, world: World) -> Truth:
        users = list(world.users)
        histories = [*(world.users[user] for user in users), np.empty(0, np.int64)]
        scores = [world.answer(history, world.ids) for history in histories]
        return cls(world, users, np.stack(scores))

    def judge(self, user: int, chosen: NDArray[np.int64], status: int, answer: Any) -> str:
        """right, wrong, or why there is no answer. ``user`` and ``chosen`` are positions."""
        if status != 200:
            return str(answer["type"])
        row = len(self.users) if "history" in answer["degraded"] else user
        right = (
            answer["item_ids"] == self.world.ids[chosen].tolist()
            and not answer["unknown_items"]
            and np.abs(np.array(answer["scores"]) - self.scores[row, chosen]).max() <= TOLERANCE
        )
        return "right" if right else "wrong"


async def provoke(askers: list[Ask], truth: Truth, requests: int, seed: int = 0) -> Counter[str]:
    """How requests ended: cancelled, right, wrong, or the type of their problem."""
    ended, choose, left = Counter[str](), random.Random(seed), iter(range(requests))

    async def one(ask: Ask) -> None:
        user = choose.randrange(len(truth.users))
        chosen = np.array(choose.choices(range(len(truth.world.ids)), k=CANDIDATES))
        body = {"user_id": truth.users[user], "candidates": truth.world.ids[chosen].tolist()}
        status, answer = await ask(body)
        ended[truth.judge(user, chosen, status, answer)] += 1

    async def some(ask: Ask) -> None:
        for _ in left:
            task = asyncio.create_task(one(ask))
            if choose.random() < CANCELLED:
                await asyncio.sleep(choose.uniform(0, WITHIN_S))
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                ended["cancelled"] += 1

    async with asyncio.TaskGroup() as group:
        for ask in askers:
            group.create_task(some(ask))
    return ended


class Leaving:
    """Asks over a connection of its own, which it drops at once when it is cancelled."""

    def __init__(self, port: int) -> None:
        self._port, self._asker = port, Asker(port)

    async def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        try:
            return await self._asker.ask(orjson.dumps(body))
        except asyncio.CancelledError:
            self._asker.abort()
            self._asker = Asker(self._port)
            raise

    def close(self) -> None:
        self._asker.close()


def provoked(world: World, requests: int) -> dict[str, int]:
    """Over HTTP, by a service process."""
    truth, room = Truth.of(world), int(TABLE_SHARE * len(world.ids))
    settings = {"QIN_STORE_TIMEOUT_MS": str(PATIENCE_MS), "QIN_DEADLINE_MS": "10000"}
    settings |= {"QIN_MAX_TABLE_ITEMS": str(room), "QIN_LOG_LEVEL": "error"}
    with serving(world.models, world.store, **settings) as service:

        async def ask() -> Counter[str]:
            askers = [Leaving(service.port) for _ in range(AT_A_TIME)]
            ended = await provoke(list(askers), truth, requests)
            for asker in askers:
                asker.close()
            return ended

        ended = asyncio.run(ask())
        with service.client() as client:
            evicted = _metric(client, "qin_item_table_evicted_total")
    others = {how: n for how, n in ended.items() if how not in ("cancelled", "right", "wrong")}
    return {
        "requests": requests,
        "cancelled": ended["cancelled"],
        "right": ended["right"],
        "wrong": ended["wrong"],
        **others,
        "evictions": int(evicted),
    }


def _metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def main(
    requests: Annotated[int, typer.Option(help="How many.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a single answer is wrong."""
    with tempfile.TemporaryDirectory() as folder, standalone(Path(folder) / "redis") as server:
        made = make_world(Path(folder))
        found = provoked(on_another_store(made, f"redis://127.0.0.1:{server.port}"), requests)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:24} {v}" for k, v in found.items()))
    raise typer.Exit(int(found["wrong"] > 0 or found["right"] == 0))


if __name__ == "__main__":
    typer.run(main)
