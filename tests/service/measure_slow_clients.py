"""Whether slow clients cost healthy ones.

    python -m tests.service.measure_slow_clients [--json]

Stretches with 500 silent, partial and trickling sockets alternate with stretches without; a socket
that is closed is opened again, so there are always 500. Healthy score requests come in an open
loop, timed from their scheduled start. The service has one core, this program the other.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
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
COMING_S = 2.5  # until all slow ones are there, and leave and come at all times
HERE = b"here\n"
DRIP_S = 1.0  # between the bytes of a trickle
KINDS: dict[str, tuple[bytes, bytes]] = {  # what is sent at once, and then bit by bit
    "silent": (b"", b""),
    "half headers": (HALF_HEADERS, b""),
    "half body": (HALF_BODY, b""),
    "trickled headers": (POST + b"X: ", b"x"),
    "trickled body": (POST + PATIENT + b"Content-Length: 1000\r\n\r\n{", b" "),
}


class Crowd:
    """Slow clients, in a process of their own that yields to the healthy ones' program."""

    def __init__(self, service: Service) -> None:
        self._port = service.port
        self.open_s: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def come(self, count: int) -> None:
        command = [sys.executable, "-m", "tests.service.measure_slow_clients"]
        self._process = subprocess.Popen(
            [*command, "--slow-at", str(self._port), "--sockets", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == HERE

    def leave(self) -> None:
        said, _ = self._process.communicate(timeout=30)  # closes its standard input: it ends
        for kind, seconds in orjson.loads(said).items():
            self.open_s[kind] += seconds


async def be_slow(port: int, count: int) -> dict[str, list[float]]:
    """``count`` connections, one after the other each, until standard input ends: how long each
    lasted."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # whatever the others are run at
    os.nice(10)
    open_s: dict[str, list[float]] = {kind: [] for kind in KINDS}
    kinds = list(KINDS)
    tasks = [
        asyncio.create_task(_slow(port, kinds[n % len(kinds)], n / count, open_s))
        for n in range(count)
    ]
    await asyncio.sleep(COMING_S)
    sys.stdout.buffer.write(HERE)
    sys.stdout.buffer.flush()
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return open_s


async def _slow(port: int, kind: str, delay_s: float, open_s: dict[str, list[float]]) -> None:
    await asyncio.sleep(delay_s)
    at_once, bit = KINDS[kind]
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = perf_counter()
        try:
            writer.write(at_once)
            dripping = asyncio.create_task(_drip(writer, bit))
            with suppress(ConnectionError):
                while await reader.read(4096):
                    pass
            dripping.cancel()
        finally:  # one that is still open when the crowd leaves counts as well
            open_s[kind].append(perf_counter() - began)
            writer.close()


async def _drip(writer: asyncio.StreamWriter, bit: bytes) -> None:
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
            QIN_HEADERS_TIMEOUT_MS="3500",  # as they are by default
            QIN_BODY_TIMEOUT_MS="3500",
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
                    await asyncio.to_thread(crowd.come, sockets)
                (beside if crowded else without).append(await load.run(seconds, Stretch()))
                if crowded:
                    await asyncio.to_thread(crowd.leave)
        load.close()
    finally:
        service.stop()
        service.remove()
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
        and found["longest_open_s"].keys() == KINDS.keys()
        and max(found["longest_open_s"].values()) <= ALLOWED_OPEN_S
    )


def main(
    sockets: Annotated[int, typer.Option(help="Slow ones at a time.")] = 500,
    rate: Annotated[float, typer.Option(help="Healthy requests per second.")] = 100,
    seconds: Annotated[float, typer.Option(help="Of each stretch; longer than 5.")] = 8,
    pairs: Annotated[int, typer.Option(help="Stretches with and without.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
    slow_at: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Exit code 1 when a healthy request failed, p99 rose beyond 1.2×, or one stayed beyond 5 s."""
    if slow_at:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            typer.echo(orjson.dumps(runner.run(be_slow(slow_at, sockets))))
        return
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measured(world, sockets, rate, seconds, pairs))
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:24} {v}" for k, v in found.items()))
    raise typer.Exit(int(not holds(found)))


if __name__ == "__main__":
    typer.run(main)
