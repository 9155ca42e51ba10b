"""``python -m tests.service.measure_cardinality --json``: can a client add metric series?

A running service is asked for random paths, users, items and versions, never one of them twice,
from several connections. Exit code 1 if a series was added or a scrape took longer than it may.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import aiohttp
import numpy as np
import typer

from tests.service.process import serving
from tests.service.world import make_world

CONNECTIONS = 4
SCRAPES = 50
MOST_SCRAPE_MS = 20.0
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@dataclass
class Figures:
    requests: int  # each with a path, user, item or version never used before
    workers: int
    series_before: int
    series_after: int
    added: list[str]  # their lines, if there are any
    bytes: int  # of a scrape
    scrape_ms_median: float
    scrape_ms_worst: float


async def anything(session: aiohttp.ClientSession, pick: random.Random, tag: str) -> None:
    """One request of a random kind."""
    number, kind = pick.getrandbits(62), pick.randrange(5)
    score = {"user_id": number, "candidates": [number]}
    method, path, body = {
        0: (pick.choice(METHODS), f"/{tag}/{number:x}?{number}", None),
        1: ("GET", f"/v1/items/{number}", None),
        2: ("POST", "/v1/score", score),
        3: ("POST", "/v1/score", {**score, "model_version": f"v{tag}-{number:x}"}),
        4: ("POST", f"/v2/models/{tag}{number:x}/infer", score),
    }[kind]
    headers = {"X-Request-Id": f"{tag}-{number}", "User-Agent": f"agent {number}"}
    async with session.request(method, path, json=body, headers=headers) as answer:
        await answer.read()
        if answer.status >= 500:
            raise AssertionError(f"{method} {path}: {answer.status}")


async def scrape(session: aiohttp.ClientSession) -> tuple[bytes, float]:
    began = perf_counter()
    async with session.get("/metrics") as answer:
        return await answer.read(), 1e3 * (perf_counter() - began)


def series(content: bytes) -> set[str]:
    lines = content.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


async def measure(url: str, requests: int, workers: int) -> Figures:
    async with aiohttp.ClientSession(url) as session:
        await scrape(session)  # a route as any other
        await send(session, 3000, "warm")
        before = series((await scrape(session))[0])
        await send(session, requests, "more")
        await asyncio.sleep(1)
        found = [await scrape(session) for _ in range(SCRAPES)]
    after = series(found[-1][0])
    took = np.array([milliseconds for _, milliseconds in found])
    return Figures(
        requests=requests,
        workers=workers,
        series_before=len(before),
        series_after=len(after),
        added=sorted(after - before),
        bytes=len(found[-1][0]),
        scrape_ms_median=round(float(np.median(took)), 2),
        scrape_ms_worst=round(float(took.max()), 2),
    )


async def send(session: aiohttp.ClientSession, requests: int, tag: str) -> None:
    async def some(number: int) -> None:
        pick = random.Random(f"{tag}{number}")
        for _ in range(requests // CONNECTIONS):
            await anything(session, pick, tag)

    await asyncio.gather(*(some(number) for number in range(CONNECTIONS)))


def main(
    requests: Annotated[int, typer.Option(help="Random requests.")] = 100_000,
    workers: Annotated[int, typer.Option(help="Processes of the service.")] = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    with tempfile.TemporaryDirectory(prefix="world-") as name:
        world = make_world(Path(name))
        # Nobody is refused for want of room or time: how often that happens is the machine's doing.
        patient = {"QIN_DEADLINE_MS": "10000", "QIN_TARGET_MS": "600000"}
        with serving(world.models, world.store, QIN_WORKERS=str(workers), **patient) as service:
            figures = asyncio.run(measure(service.url, requests, workers))
    typer.echo(json.dumps(asdict(figures)) if as_json else figures)
    if figures.added or figures.scrape_ms_median > MOST_SCRAPE_MS:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
