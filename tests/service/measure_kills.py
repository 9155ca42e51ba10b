"""What killing workers costs. ``python -m tests.service.measure_kills [--json]``.

A service of two workers answers callers that keep their connections and others that open one per
request. A worker is killed (SIGKILL), again and again, each time when all are ready. What was sent
before the kill may fail with it; what is sent after it may not.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import orjson
import typer

from service.server.listener import poll_until
from tests.service.process import Service, serving
from tests.service.traffic import Traffic
from tests.service.world import World, make_world

WORKERS = 2
ALLOWED_S = 5.0
MOST_UNDER_WAY = 16  # the callers
BETWEEN_S = 0.3  # of load, before each kill
LONGEST_ANSWER_S = 0.1  # whatever was sent earlier had its answer


async def measured(world: World, kills: int) -> dict[str, Any]:
    variables = {"QIN_WORKERS": str(WORKERS), "QIN_LOG_FORMAT": "json"}
    with serving(world.models, world.store, **variables) as service:
        await _until(lambda: _ready(service) == WORKERS)
        traffic = Traffic.begin(service, world, keeping=12, fresh=4)
        dying, ready_again = list[tuple[float, float]](), list[float]()
        for kill in range(kills):
            await asyncio.sleep(BETWEEN_S)
            victim, began = random.choice(_workers(service)), monotonic()
            os.kill(victim, signal.SIGKILL)
            await _until(lambda pid=victim: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]
            dying.append((began, monotonic()))
            await _until(lambda ready=WORKERS + kill + 1: _ready(service) == ready)  # type: ignore[misc]
            ready_again.append(monotonic() - began)
        outcomes = await traffic.end()
    with_it = [
        (sent, why) for sent, why in outcomes.lost if any(_shares(sent, span) for span in dying)
    ]
    others = [why for sent, why in outcomes.lost if (sent, why) not in with_it]
    return {
        "kills": kills,
        "dying_ms_longest": round(1e3 * max(gone - began for began, gone in dying), 1),
        "answered": outcomes.statuses[200],
        "answered_otherwise": {s: n for s, n in outcomes.statuses.items() if s != 200},
        "failed_with_a_worker": len(with_it),
        "failed_otherwise": others,
        "connections_refused": outcomes.refused,
        "ready_again_s_median": round(sorted(ready_again)[len(ready_again) // 2], 2),
        "ready_again_s_longest": round(max(ready_again), 2),
    }


def _shares(sent: float, dying: tuple[float, float]) -> bool:
    """Whether it was under way while a worker died: until it is gone its connections are open."""
    killed, gone = dying
    return killed - LONGEST_ANSWER_S < sent < gone


def _workers(service: Service) -> list[int]:
    pid = service.process.pid
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ready(service: Service) -> int:
    return service.log.read_bytes().count(b'"event":"ready"')


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        await poll_until(condition)


def holds(found: dict[str, Any]) -> bool:
    return (
        not found["failed_otherwise"]
        and found["failed_with_a_worker"] <= MOST_UNDER_WAY * found["kills"]
        and not found["answered_otherwise"]
        and not found["connections_refused"]
        and found["ready_again_s_longest"] <= ALLOWED_S
    )


def main(
    kills: Annotated[int, typer.Option(help="How many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a request failed that was no dead worker's, or a new one took over 5 s."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(make_world(Path(folder)), kills))
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    typer.echo(text if as_json else "\n".join(f"{k:24} {v}" for k, v in found.items()))
    raise typer.Exit(int(not holds(found)))


if __name__ == "__main__":
    typer.run(main)
