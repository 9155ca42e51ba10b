"""What a fault of the store costs those who ask for scores.

    python -m tests.service.measure_faults [--json]

A service process with the settings of a server reads from a real Redis behind a proxy that breaks
connections; the server itself declines, too. Score requests come in an open loop, Poisson arrivals,
timed from their scheduled start: without a fault and during each fault, by turns, and after it
until answers are whole again.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from feature_store.schema import FeatureSchema
from tests.feature_store import server_faults
from tests.feature_store.fault_proxy import Fault, FaultProxy, proxied
from tests.feature_store.redis_servers import Server, standalone
from tests.feature_store.server_faults import ServerFault, brought_about
from tests.service.fault_load import Load, Stretch
from tests.service.process import start, wait_ready
from tests.service.world import World, make_world, on_another_store
from training.qin import QINSizes

BUDGET_MS = 20.0
ALLOWED = 1.2  # × the normal p99, beside the budget
SPOILT = 5  # every so manieth user or item, where a fault is of one record

Trouble = Callable[[], contextlib.AbstractAsyncContextManager[None]]


def troubles(world: World, server: Server, proxy: FaultProxy, seconds: float) -> dict[str, Trouble]:
    """Every fault by its name: of the network, then of a server that answers."""

    @contextlib.asynccontextmanager
    async def of_network(fault: Fault) -> AsyncIterator[None]:
        await proxy.become(fault)
        yield
        await proxy.become(Fault.NONE)

    users, items = list(world.users)[::SPOILT], world.ids[::SPOILT].tolist()
    declined: dict[str, ServerFault] = {
        "another password": server_faults.another_password,
        "LOADING": partial(server_faults.loading, seconds=seconds + 2),
        "READONLY": server_faults.read_only,
        "OOM": server_faults.out_of_memory,
        "a fifth of the histories of another type": partial(
            server_faults.histories_of_another_type, users=users
        ),
        "a fifth of the items damaged": partial(server_faults.damaged_items, items=items),
    }
    network = {f.value: partial(of_network, f) for f in Fault if f is not Fault.NONE}
    return {**network, **{name: partial(brought_about, f, server) for name, f in declined.items()}}


async def measured(
    world: World, rate: float, seconds: float, rounds: int, policy: str, only: str
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
                    {"fault": name} | await _trouble(load, trouble, seconds, rounds)
                    for name, trouble in troubles(world, server, proxy, seconds).items()
                    if only in name
                ]
                load.close()
            finally:
                service.stop()
                service.remove()
    return {"budget_ms": BUDGET_MS, "rate": rate, "on_store_failure": policy, "faults": found}


async def _trouble(load: Load, trouble: Trouble, seconds: float, rounds: int) -> dict[str, Any]:
    """Normal and faulty stretches by turns, so that both have the machine's other work beside."""
    normal, during, whole_again = Stretch(), Stretch(), list[float]()
    for _ in range(rounds):
        await load.run(seconds, normal)
        async with trouble():
            await load.run(seconds, during)
        whole_again.append(await load.whole_again())
    allowed = BUDGET_MS + ALLOWED * normal.percentile(99)
    return {
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
    seconds: Annotated[float, typer.Option(help="Of a stretch with or without a fault.")] = 3,
    rounds: Annotated[int, typer.Option(help="Stretches of each kind.")] = 3,
    policy: Annotated[str, typer.Option(help="degrade or fail")] = "degrade",
    only: Annotated[str, typer.Option(help="Faults whose name holds this.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a p99 during a fault exceeds the store's budget + 1.2 × the normal p99."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(
            Path(folder), FeatureSchema.microlens(), QINSizes(), items=2000, users=200
        )
        found = asyncio.run(measured(world, rate, seconds, rounds, policy, only))
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        show(found)
    raise typer.Exit(int(not all(row["within"] for row in found["faults"])))


if __name__ == "__main__":
    typer.run(main)
