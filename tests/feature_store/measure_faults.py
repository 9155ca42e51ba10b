"""What each fault costs: ``python -m tests.feature_store.measure_faults [--json]``.

A store with the budget of a serving process behind a proxy that breaks connections: reads come as
requests would, in an open loop, before, during and after each fault. Then reads and appends are
cancelled at random moments and every answer is compared with the asker's own data.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from feature_store import connect
from feature_store.errors import StoreError
from feature_store.options import StoreOptions
from feature_store.redis.store import RedisStore
from tests.feature_store.fault_proxy import Fault, FaultProxy, proxied
from tests.feature_store.redis_servers import standalone
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import PATIENCE_MS

USERS = 1_000


async def measured(rate: float, seconds: float, cancelled: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, standalone(Path(folder)) as server:
        async with proxied(server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            patient = StoreOptions(budget_ms=PATIENCE_MS)
            loader = await connect(url, SHOP, create=True, options=patient)
            await loader.put_histories({user: ids(user, 1) for user in range(USERS)})
            await loader.put_items(np.arange(USERS), random_rows(SHOP, USERS))
            await loader.close()
            store = await connect(url, SHOP)
            assert isinstance(store, RedisStore)
            normal = await _reads(store, rate, seconds)
            faults = {}
            for fault in Fault:
                if fault is not Fault.NONE:
                    faults[fault.value] = await _fault(store, proxy, fault, rate, seconds)
            await store.close()
            store = await connect(url, SHOP, options=patient)
            assert isinstance(store, RedisStore)
            mixed = await _cancelled(store, cancelled)
            await store.close()
    return {
        "budget_ms": StoreOptions().budget_ms,
        "normal": normal,
        "faults": faults,
        "cancelled": mixed,
    }


async def _fault(
    store: RedisStore, proxy: FaultProxy, fault: Fault, rate: float, seconds: float
) -> dict[str, Any]:
    began = time.monotonic()
    opens = asyncio.create_task(_until(lambda: bool(store.open_breakers)))
    await proxy.become(fault)
    during = await _reads(store, rate, seconds)
    opened_s = (await opens) - began
    began = time.monotonic()
    closes = asyncio.create_task(_until(lambda: not store.open_breakers))
    await proxy.become(Fault.NONE)
    closed_s = (await closes) - began
    after = await _reads(store, rate, 1.0)
    return during | {
        "breaker_opens_s": round(opened_s, 3),
        "breaker_closes_s": round(closed_s, 3),
        "failed_after": after["failed"],
    }


async def _until(true: Any, within_s: float = 10.0) -> float:
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            raise TimeoutError("it never came")
        await asyncio.sleep(0.002)
    return time.monotonic()


async def _reads(store: RedisStore, rate: float, seconds: float) -> dict[str, Any]:
    """Open loop, Poisson arrivals; an answer's time runs from its scheduled start."""
    times: list[float] = []
    failed = 0

    async def one(user: int, scheduled: float) -> None:
        nonlocal failed
        try:
            found = await store.history(user)
            assert found is not None
            assert found.tolist() == [user, 1]
        except StoreError:
            failed += 1
        times.append(time.monotonic() - scheduled)

    choose, tasks = random.Random(1), []
    scheduled = time.monotonic()
    end = scheduled + seconds
    while scheduled < end:
        scheduled += choose.expovariate(rate)
        await asyncio.sleep(max(0, scheduled - time.monotonic()))
        tasks.append(asyncio.create_task(one(choose.randrange(USERS), scheduled)))
    await asyncio.gather(*tasks)
    p50, p99 = np.percentile(np.array(times) * 1e3, [50, 99])
    return {
        "requests": len(times),
        "failed": failed,
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "worst_ms": round(max(times) * 1e3, 3),
    }


async def _cancelled(store: RedisStore, requests: int) -> dict[str, int]:
    """Requests cancelled at random moments: how many ended, and how many with another's data."""
    choose = random.Random(2)
    rows = (await store.items(np.arange(USERS))).rows
    ended = wrong = 0

    async def one(user: int) -> None:
        nonlocal ended, wrong
        if user % 2:
            found = await store.history(user)
            right = found is not None and found.tolist() == [user, 1]
        else:
            asked = np.arange(user, user + 5) % USERS
            right = (await store.items(asked)).rows.tobytes() == rows[asked].tobytes()
        ended += 1
        wrong += not right

    for _ in range(requests // 100):
        tasks = [asyncio.create_task(one(choose.randrange(USERS))) for _ in range(100)]
        await asyncio.sleep(choose.uniform(0, 0.005))
        for task in tasks:
            if choose.random() < 0.6:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {"requests": requests // 100 * 100, "answered": ended, "wrong": wrong}


def main(
    rate: Annotated[float, typer.Option(help="Reads a second.")] = 200.0,
    seconds: Annotated[float, typer.Option(help="Of each fault.")] = 5.0,
    cancelled: Annotated[int, typer.Option(help="Requests to cancel at random.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bars: p99 during a fault ≤ budget + normal p99 × 1.2; opens ≤ 1 s, closes ≤ 2 s; 0 wrong."""
    told = asyncio.run(measured(rate, seconds, cancelled))
    if as_json:
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        return
    table = Table("", "failed", "p50 ms", "p99 ms", "worst ms", "opens s", "closes s")
    for name, row in {"no fault": told["normal"], **told["faults"]}.items():
        table.add_row(
            name,
            f"{row['failed']}/{row['requests']}",
            *(f"{row[part]:.2f}" for part in ("p50_ms", "p99_ms", "worst_ms")),
            *(f"{row[part]:.2f}" if part in row else "" for part in _BREAKER),
        )
    Console().print(table)
    Console().print("cancelled at random:", told["cancelled"])


_BREAKER = ("breaker_opens_s", "breaker_closes_s")

if __name__ == "__main__":
    typer.run(main)
