"""Whether slow clients cost healthy ones.

    python -m tests.service.measure_slow_clients [--json]

Stretches with 500 silent, partial and trickling sockets alternate with stretches without; a socket
that is closed is opened again, so there are always 500. Healthy score requests come in an open
loop, timed from their scheduled start. The service has one core, this program the other.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import orjson
import typer
import uvloop

from tests.service.measure_faults import Load, Stretch
from tests.service.process import Service, start, wait_ready
from tests.service.wire import HALF_BODY, HALF_HEADERS, PATIENT, POST
from tests.service.world import World, make_world

ALLOWED_RATIO, ALLOWED_OPEN_S = 1.2, 5.0
DRIP_S = 1.0  # between the bytes of a trickle
KINDS: dict[str, tuple[bytes, bytes]] = {  # what is sent at once, and then bit by bit
    "silent": (b"", b""),
    "half headers": (HALF_HEADERS, b""),
    "half body": (HALF_BODY, b""),
    "trickled headers": (POST + b"X: ", b"x"),
    "trickled body": (POST + PATIENT + b"Content-Length: 1000\r\n\r\n{", b" "),
}


@dataclass(slots=True)
class Crowd:
    """Slow clients; ``open_s`` is how long each of their connections lasted."""

    service: Service
    open_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def come(self, count: int) -> None:
        kinds = list(KINDS)
        self.tasks = [
            asyncio.create_task(self._one(kinds[n % len(kinds)], n / count)) for n in range(count)
        ]

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _one(self, kind: str, delay_s: float) -> None:
        """One connection after the other."""
        await asyncio.sleep(delay_s)
        at_once, bit = KINDS[kind]
        while True:
            reader, writer = await asyncio.open_connection(self.service.host, self.service.port)
            began = perf_counter()
            try:
                writer.write(at_once)
                dripping = asyncio.create_task(self._drip(writer, bit))
                try:
                    while await reader.read(4096):
                        pass
                except ConnectionError:
                    pass
                dripping.cancel()
                self.open_s[kind].append(perf_counter() - began)
            finally:
                writer.close()

    async def _drip(self, writer: asyncio.StreamWriter, bit: bytes) -> None:
        with suppress(ConnectionError, RuntimeError):  # uvloop's word for a closed transport
            while bit:
                await asyncio.sleep(DRIP_S)
                writer.write(bit)


async def measured(
    world: World, sockets: int, rate: float, seconds: float, pairs: int
) -> dict[str, Any]:
    everywhere = os.sched_getaffinity(0)
    ours, theirs = min(everywhere), max(everywhere)
    os.sched_setaffinity(0, {theirs})  # inherited by the service
    try:
        service = start(
            *("--bundle", str(world.models), "--store", world.store),
            QIN_LOG_LEVEL="error",
            QIN_HEADERS_TIMEOUT_MS="2000",  # as they are by default
            QIN_BODY_TIMEOUT_MS="2000",
        )
    finally:
        os.sched_setaffinity(0, {ours})
    try:
        await asyncio.to_thread(wait_ready, service)
        load, crowd = Load(service, world, rate), Crowd(service)
        await load.run(1.0, Stretch())  # warms up
        without, beside = list[Stretch](), list[Stretch]()
        for pair in range(pairs):
            for crowded in ((False, True), (True, False))[pair % 2]:
                if crowded:
                    crowd.come(sockets)
                    await asyncio.sleep(1.5)  # until all are there
                (beside if crowded else without).append(await load.run(seconds, Stretch()))
                if crowded:
                    await crowd.leave()
        load.close()
    finally:
        service.stop()
        service.log.unlink()
    return _summary(sockets, without, beside, crowd)


def _summary(
    sockets: int, without: list[Stretch], beside: list[Stretch], crowd: Crowd
) -> dict[str, Any]:
    ratios = [b.percentile(99) / a.percentile(99) for a, b in zip(without, beside, strict=True)]
    healthy = [status for one in beside for status in one.outcomes.elements()]
    return {
        "sockets": sockets,
        "healthy_requests": len(healthy),
        "healthy_successful": healthy.count("whole"),
        "p99_ms_without": [one.percentile(99) for one in without],
        "p99_ms_beside": [one.percentile(99) for one in beside],
        "p99_ratio": round(float(np.median(ratios)), 3),
        "connections_closed": sum(map(len, crowd.open_s.values())),
        "longest_open_s": {kind: round(max(s), 2) for kind, s in crowd.open_s.items() if s},
    }


def holds(found: dict[str, Any]) -> bool:
    return (
        found["healthy_successful"] == found["healthy_requests"]
        and found["p99_ratio"] <= ALLOWED_RATIO
        and max(found["longest_open_s"].values()) <= ALLOWED_OPEN_S
    )


def main(
    sockets: Annotated[int, typer.Option(help="Slow ones at a time.")] = 500,
    rate: Annotated[float, typer.Option(help="Healthy requests per second.")] = 200,
    seconds: Annotated[float, typer.Option(help="Of each stretch; longer than 5.")] = 8,
    pairs: Annotated[int, typer.Option(help="Stretches with and without.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a healthy request failed, p99 rose beyond 1.2×, or one stayed beyond 5 s."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measured(world, sockets, rate, seconds, pairs))
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:24} {v}" for k, v in found.items()))
    raise typer.Exit(int(not holds(found)))


if __name__ == "__main__":
    typer.run(main)
