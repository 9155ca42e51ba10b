"""What a fault of the store costs those who ask for scores.

    python -m tests.service.measure_faults [--json]

A service process with the settings of a server reads from a real Redis behind a proxy that breaks
connections. Score requests come in an open loop, Poisson arrivals, timed from their scheduled
start: without a fault and during each fault, by turns, and after it until answers are whole again.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import httptools
import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from feature_store.schema import FeatureSchema
from tests.feature_store.fault_proxy import Fault, FaultProxy, proxied
from tests.feature_store.redis_servers import standalone
from tests.service.process import Service, start, wait_ready
from tests.service.world import World, make_world, on_another_store
from training.qin import QINSizes

BUDGET_MS = 20.0
ALLOWED = 1.2  # × the normal p99, beside the budget
CANDIDATES = 64


@dataclass(slots=True)
class Stretch:
    """What was answered in one stretch of time."""

    times: list[float] = field(default_factory=list)  # seconds
    outcomes: Counter[str] = field(default_factory=Counter)

    def percentile(self, q: float) -> float:
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

    async def ask(self, content: bytes) -> tuple[int, Any]:
        """Status and body of an answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        parser = httptools.HttpResponseParser(self)
        self._body, self._whole = b"", False
        head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content)
        writer.write(head + content)
        while not self._whole:
            data = await reader.read(65_536)
            assert data, "the service closed the connection"
            parser.feed_data(data)
        return parser.get_status_code(), orjson.loads(self._body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


class Load:
    """Requests for this service, as many a second as told."""

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
            for _ in range(500)
        ]

    async def run(self, seconds: float, stretch: Stretch) -> Stretch:
        tasks = list[asyncio.Task[None]]()
        scheduled = perf_counter()
        end = scheduled + seconds
        while scheduled < end:
            scheduled += self._random.expovariate(self._rate)
            await asyncio.sleep(max(0, scheduled - perf_counter()))
            tasks.append(asyncio.create_task(self._one(scheduled, stretch)))
        await asyncio.gather(*tasks)
        return stretch

    async def _one(self, scheduled: float, stretch: Stretch) -> None:
        asker = self._idle.pop() if self._idle else Asker(self._port)
        status, answer = await asker.ask(self._random.choice(self._bodies))
        stretch.times.append(perf_counter() - scheduled)
        self._idle.append(asker)
        said = "+".join(answer["degraded"]) or "whole" if status == 200 else answer["type"][16:]
        stretch.outcomes[said] += 1

    def close(self) -> None:
        for asker in self._idle:
            asker.close()


async def measured(
    world: World, rate: float, seconds: float, rounds: int, policy: str
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, standalone(Path(folder)) as server:
        backed = await asyncio.to_thread(
            on_another_store, world, f"redis://127.0.0.1:{server.port}"
        )
        async with proxied(server.port) as proxy:
            behind = f"redis://127.0.0.1:{proxy.port}"
            service = start(
                *("--bundle", str(backed.models), "--store", behind, "--threads", "1"),
                QIN_STORE_TIMEOUT_MS=str(BUDGET_MS),
                QIN_ON_STORE_FAILURE=policy,
                QIN_LOG_LEVEL="error",
            )
            try:
                await asyncio.to_thread(wait_ready, service)
                load = Load(service, replace(world, store=behind), rate)
                await load.run(1.0, Stretch())  # warms up
                found = [
                    await _fault(load, proxy, fault, seconds, rounds)
                    for fault in Fault
                    if fault is not Fault.NONE
                ]
                load.close()
            finally:
                service.stop()
                service.log.unlink()
    return {"budget_ms": BUDGET_MS, "rate": rate, "on_store_failure": policy, "faults": found}


async def _fault(
    load: Load, proxy: FaultProxy, fault: Fault, seconds: float, rounds: int
) -> dict[str, Any]:
    """Normal and faulty stretches by turns, so that both have the machine's other work beside."""
    normal, during, whole_again = Stretch(), Stretch(), list[float]()
    for _ in range(rounds):
        await load.run(seconds, normal)
        await proxy.become(fault)
        await load.run(seconds, during)
        await proxy.become(Fault.NONE)
        began = perf_counter()
        while (await load.run(0.05, Stretch())).outcomes.keys() - {"whole"}:
            assert perf_counter() - began < 30, "it never recovered"
        whole_again.append(perf_counter() - began)
    allowed = BUDGET_MS + ALLOWED * normal.percentile(99)
    return {
        "fault": fault.value,
        "normal": normal.as_json(),
        "during": during.as_json(),
        "allowed_p99_ms": round(allowed, 3),
        "within": during.percentile(99) <= allowed,
        "whole_again_s": round(max(whole_again), 2),
    }


def show(found: dict[str, Any]) -> None:
    table = Table(title=f"p99 of answers, ms (budget {found['budget_ms']:g})")
    for name in ("fault", "normal", "during", "allowed", "worst", "whole again s", "outcomes"):
        table.add_column(name)
    for row in found["faults"]:
        during = row["during"]
        numbers = (row["normal"]["p99_ms"], during["p99_ms"], row["allowed_p99_ms"])
        rest = (during["worst_ms"], row["whole_again_s"], during["outcomes"])
        table.add_row(row["fault"], *map(str, (*numbers, *rest)))
    Console(width=140).print(table)


def main(
    rate: Annotated[float, typer.Option(help="Requests per second.")] = 100,
    seconds: Annotated[float, typer.Option(help="Of a stretch with or without a fault.")] = 4,
    rounds: Annotated[int, typer.Option(help="Stretches of each kind.")] = 4,
    policy: Annotated[str, typer.Option(help="degrade or fail")] = "degrade",
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a p99 during a fault exceeds the store's budget + 1.2 × the normal p99."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(
            Path(folder), FeatureSchema.microlens(), QINSizes(), items=2000, users=200
        )
        found = asyncio.run(measured(world, rate, seconds, rounds, policy))
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        show(found)
    raise typer.Exit(int(not all(row["within"] for row in found["faults"])))


if __name__ == "__main__":
    typer.run(main)
