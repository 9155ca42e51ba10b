"""``python -m tests.service.measure_sizing --json``: what one core does, and what memory is needed.

A service at the paper's sizes with one engine thread is asked back to back over HTTP; a Redis of
its own is filled with users and items, and asked how much memory it has in use.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import aiohttp
import numpy as np
import typer

from feature_store import connect
from feature_store.contract import Append
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema
from tests.feature_store.redis_servers import Server, standalone
from tests.service.process import serving
from tests.service.world import make_rows, make_world
from training.qin import QINSizes

CANDIDATES = 512
CONNECTIONS = 2  # so that the one engine thread never waits for a question
SAMPLE = 50_000  # users and items put into Redis
BATCH = 1000
MILLION = 1_000_000


async def candidates_per_second(
    url: str, ids: list[int], users: list[int], seconds: float
) -> float:
    answered = 0

    async def ask(session: aiohttp.ClientSession, number: int, until: float) -> None:
        nonlocal answered
        random = np.random.default_rng(number)
        while perf_counter() < until:
            chosen = random.choice(ids, CANDIDATES).tolist()
            body = {"user_id": int(random.choice(users)), "candidates": chosen}
            async with session.post("/v1/score", json=body) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            answered += CANDIDATES

    async with aiohttp.ClientSession(url) as session:
        for length in (1.0, seconds):  # the first one warms up
            answered, began = 0, perf_counter()
            until = began + length
            await asyncio.gather(*(ask(session, n, until) for n in range(CONNECTIONS)))
            took = perf_counter() - began
    return answered / took


async def redis_bytes(server: Server, schema: FeatureSchema) -> dict[str, float]:
    """Of one user with a full history, and of one item."""
    random = np.random.default_rng(0)
    look = server.client()
    url = f"redis://127.0.0.1:{server.port}"
    store = await connect(url, schema, create=True, options=StoreOptions(budget_ms=30_000))
    used = [int(look.info("memory")["used_memory"])]
    try:
        ids = random.integers(2**62, size=SAMPLE)  # never twice the same, as good as
        for start in range(0, SAMPLE, BATCH):
            part = ids[start : start + BATCH]
            await store.put_items(part, make_rows(schema, len(part), random))
        used.append(int(look.info("memory")["used_memory"]))
        for start in range(0, SAMPLE, BATCH):
            users = range(start, start + BATCH)
            clicks = random.choice(ids, (BATCH, schema.history_length))
            await store.append_all(
                [Append(10**12 + u, c.tolist(), None) for u, c in zip(users, clicks, strict=True)]
            )
        used.append(int(look.info("memory")["used_memory"]))
    finally:
        await store.close()
    items, users_too = np.diff(used) / SAMPLE
    return {"item": float(items), "user": float(users_too)}


def main(
    seconds: Annotated[float, typer.Option(help="Of scoring; 0: the memory alone.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    schema = FeatureSchema.microlens()
    figures: dict[str, Any] = {"history_length": schema.history_length}
    with tempfile.TemporaryDirectory(prefix="world-") as name:
        folder = Path(name)
        with standalone(folder / "redis") as server:
            bytes_of = asyncio.run(redis_bytes(server, schema))
        for what, count in bytes_of.items():
            figures[f"redis_mb_per_million_{what}s"] = round(count * MILLION / 1e6)
        if seconds:
            world = make_world(folder, schema, QINSizes(), items=2000, users=500)
            with serving(world.models, world.store, QIN_THREADS="1") as service:
                ids, users = world.ids.tolist(), list(world.users)
                rate = asyncio.run(candidates_per_second(service.url, ids, users, seconds))
            figures["candidates_a_request"] = CANDIDATES
            figures["candidates_per_second_per_core"] = round(rate)
    typer.echo(json.dumps(figures) if as_json else figures)


if __name__ == "__main__":
    typer.run(main)
