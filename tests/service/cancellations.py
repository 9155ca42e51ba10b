"""Requests cancelled at random moments: does anybody get somebody else's answer?

    python -m tests.service.cancellations [--requests 100000] [--json]

A service whose table is smaller than the catalogue, so that slots change hands all the time,
on a real Redis. Requests are cancelled at random moments; every answer that does come is compared
with what the network itself says of that user and those candidates.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import orjson
import typer
from numpy.typing import NDArray

from service.house import House
from service.question import Question
from service.timings import Timings
from tests.feature_store.redis_servers import standalone
from tests.service.houses import metric, opened
from tests.service.parity import TOLERANCE
from tests.service.world import World, make_world, on_another_store

CANDIDATES = 20
AT_A_TIME = 32
CANCELLED = 0.5  # of the requests
WITHIN_S = 0.02  # of their beginning
TABLE_SHARE = 0.8  # of the catalogue


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


async def provoke(house: House, truth: Truth, requests: int, seed: int = 0) -> Counter[str]:
    """How requests ended: cancelled, right, wrong, or an error by its name."""
    ended, choose, left = Counter[str](), random.Random(seed), iter(range(requests))

    async def one() -> None:
        user = choose.randrange(len(truth.users))
        chosen = np.array(choose.choices(range(len(truth.world.ids)), k=CANDIDATES))
        question = Question(truth.users[user], truth.world.ids[chosen], None, {})
        version, _ = house.versions.resolve(None)
        answer = await house.scoring.answer(question, version, perf_counter() + 10, Timings())
        told = orjson.loads(answer.json(version.name, "", None))
        row = len(truth.users) if answer.history_lost else user
        right = (
            told["item_ids"] == truth.world.ids[chosen].tolist()
            and not told["unknown_items"]
            and np.abs(answer.scores - truth.scores[row, chosen]).max() <= TOLERANCE
            and (answer.history_lost or answer.history.tolist() == _history(truth, user))
        )
        ended["right" if right else "wrong"] += 1

    async def some() -> None:
        for _ in left:
            task = asyncio.create_task(one())
            if choose.random() < CANCELLED:
                await asyncio.sleep(choose.uniform(0, WITHIN_S))
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                ended["cancelled"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(some())
    return ended


def _history(truth: Truth, user: int) -> list[int]:
    return truth.world.users[truth.users[user]].tolist()


def main(
    requests: Annotated[int, typer.Option(help="How many.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a single answer is wrong."""
    with tempfile.TemporaryDirectory() as folder, standalone(Path(folder) / "redis") as server:
        os.environ["QIN_PRIVATE"] = str(Path(folder) / "private")
        world = on_another_store(make_world(Path(folder)), f"redis://127.0.0.1:{server.port}")
        found = asyncio.run(_provoked(world, requests))
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:24} {v}" for k, v in found.items()))
    raise typer.Exit(int(found["wrong"] > 0 or found["right"] == 0))


async def _provoked(world: World, requests: int) -> dict[str, int]:
    room = int(TABLE_SHARE * len(world.ids))
    async with opened(world, max_table_items=room, log_level="warning") as house:
        ended = await provoke(house, Truth.of(world), requests)
        return {
            "requests": requests,
            "cancelled": ended["cancelled"],
            "right": ended["right"],
            "wrong": ended["wrong"],
            "evictions": int(metric(house, "qin_item_table_evicted_total")),
            "looked_up_again": int(metric(house, "qin_item_table_moved_total")),
        }


if __name__ == "__main__":
    typer.run(main)
