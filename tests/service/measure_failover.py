"""What a master's death and slots on the move cost those who ask for scores.

    python -m tests.service.measure_failover [--json]

A service process with the settings of a server reads from a real Sentinel group and from a real
Cluster, score requests coming in an open loop all the while. A master is killed; timed from the
moment its replica says that it is master: the first click that is taken and seen by the next
score. In the Cluster, slots of histories are moved between masters, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import orjson
import typer
from redis import RedisError
from redis.crc import key_slot

from feature_store.schema import FeatureSchema
from tests.feature_store.redis_moves import migrating, replica_of, role
from tests.feature_store.redis_servers import (
    ClusterGroup,
    SentinelGroup,
    Server,
    cluster_group,
    cluster_whole,
    sentinel_group,
    until,
)
from tests.service.fault_load import Asker, Load, Stretch
from tests.service.measure_faults import ALLOWED, BUDGET_MS
from tests.service.process import Service, serving
from tests.service.world import World, make_world, on_another_store
from training.qin import QINSizes

FRESH_WITHIN_S = 2.0  # of the promotion
USER = 10**9  # whose clicks are looked for

Kill = Callable[[], tuple[Server, Server]]  # -> the dead one and the one that takes over
Mend = Callable[[Server], None]


def of_sentinels(group: SentinelGroup) -> tuple[Kill, Mend]:
    def kill() -> tuple[Server, Server]:
        dead, other = sorted((group.master, group.replica), key=role)
        dead.kill()
        return dead, other

    def mend(dead: Server) -> None:
        dead.start()
        until(
            lambda: dead.client().info("replication").get("master_link_status") == "up", "a replica"
        )
        for sentinel in group.sentinels:
            until(lambda s=sentinel: _sees_a_replica(s), "sentinels to see it")  # type: ignore[misc]

    return kill, mend


def _sees_a_replica(sentinel: Server) -> bool:
    [state] = sentinel.client().sentinel_masters().values()
    [replica] = sentinel.client().sentinel_slaves(state["name"])
    return not replica["is_disconnected"] and replica["master-link-status"] == "ok"


def of_cluster(group: ClusterGroup) -> tuple[Kill, Mend]:
    def kill() -> tuple[Server, Server]:
        dead = group.master_of(key_slot(b"qin:h:{%d}" % USER))
        other = replica_of(group, dead)
        dead.kill()
        return dead, other

    def mend(dead: Server) -> None:
        dead.start()
        for server in group.servers:
            until(lambda s=server: cluster_whole(s), "the cluster to be whole")  # type: ignore[misc]

    return kill, mend


async def killed(
    service: Service, load: Load, kill: Kill, mend: Mend, seconds: float, rounds: int
) -> dict[str, Any]:
    normal, during = Stretch(), Stretch()
    promotions, fresh = list[float](), list[float]()
    for _ in range(rounds):
        await load.run(seconds, normal)
        began = perf_counter()
        dead, other = await asyncio.to_thread(kill)
        promoted = asyncio.create_task(_promoted(other))
        first_fresh = asyncio.create_task(_fresh(service.port))
        await load.until(first_fresh, during)
        promotions.append(await promoted - began)
        fresh.append(await first_fresh - await promoted)
        await asyncio.to_thread(mend, dead)
        await load.whole_again()
    return {
        **judged(normal, during),
        "promoted_after_s": [round(s, 2) for s in promotions],
        "fresh_after_promotion_s": [round(s, 3) for s in fresh],
        "fresh_within": max(fresh) <= FRESH_WITHIN_S,
    }


def judged(normal: Stretch, during: Stretch) -> dict[str, Any]:
    allowed = BUDGET_MS + ALLOWED * normal.percentile(99)
    return {
        "normal": normal.as_json(),
        "during": during.as_json(),
        "allowed_p99_ms": round(allowed, 3),
        "within": during.percentile(99) <= allowed,
    }


async def _promoted(server: Server) -> float:
    """When the replica says that it is master."""
    while True:
        with contextlib.suppress(RedisError):
            if await asyncio.to_thread(role, server) == "master":
                return perf_counter()
        await asyncio.sleep(0.01)


async def _fresh(port: int) -> float:
    """When a click has been taken and was seen by the very next score."""
    asker, clicked = Asker(port), 10**15
    score = orjson.dumps({"user_id": USER, "candidates": [1]})
    try:
        while True:
            clicked += 1
            event = orjson.dumps({"user_id": USER, "item_id": clicked})
            status, _ = await asker.ask(event, b"/v1/events")
            if status == 200:
                answer = (await asker.ask(score))[1]
                assert answer["unknown_history"][:1] == [clicked] or answer["degraded"]
                if not answer["degraded"]:
                    return perf_counter()
            await asyncio.sleep(0.01)
    finally:
        asker.close()


async def moved(
    load: Load, group: ClusterGroup, users: list[int], seconds: float, rounds: int
) -> dict[str, Any]:
    """Slots of histories are moved one after the other, each held half-way for a moment."""
    normal, during, slots = Stretch(), Stretch(), 0
    for _ in range(rounds):
        await load.run(seconds, normal)
        over = asyncio.create_task(asyncio.sleep(seconds))
        asking = asyncio.create_task(load.until(over, during))
        while not over.done():
            slot = key_slot(b"qin:h:{%d}" % users[slots % len(users)])
            finish = (await asyncio.to_thread(migrating, group, slot))[2]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(finish)
            slots += 1
        await asking
    return {**judged(normal, during), "slots_moved": slots}


async def measured(world: World, rate: float, seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"budget_ms": BUDGET_MS, "rate": rate}
    with tempfile.TemporaryDirectory() as folder:
        with sentinel_group(Path(folder) / "sentinel") as sentinels:
            backed = await asyncio.to_thread(on_another_store, world, sentinels.url)
            with _serving(backed) as service:
                load = Load(service, world, rate)
                await load.run(1.0, Stretch())  # warms up
                told = await killed(service, load, *of_sentinels(sentinels), seconds, rounds)
                found["master killed under Sentinel"] = told
                load.close()
        with cluster_group(Path(folder) / "cluster") as cluster:
            backed = await asyncio.to_thread(on_another_store, world, cluster.url)
            with _serving(backed) as service:
                load = Load(service, world, rate)
                await load.run(1.0, Stretch())
                users = list(world.users)
                found["slots on the move"] = await moved(load, cluster, users, seconds, rounds)
                told = await killed(service, load, *of_cluster(cluster), seconds, rounds)
                found["master killed in the Cluster"] = told
                load.close()
    return found


def _serving(world: World) -> contextlib.AbstractContextManager[Service]:
    settings = {"QIN_THREADS": "1", "QIN_LOG_LEVEL": "error"}
    return serving(world.models, world.store, QIN_STORE_TIMEOUT_MS=str(BUDGET_MS), **settings)


def main(
    rate: Annotated[float, typer.Option(help="Requests per second.")] = 100,
    seconds: Annotated[float, typer.Option(help="Of a stretch without a fault.")] = 3,
    rounds: Annotated[int, typer.Option(help="Masters killed in each.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a p99 exceeds the budget + 1.2 × the normal p99, or fresh took over 2 s."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(
            Path(folder), FeatureSchema.microlens(), QINSizes(), items=2000, users=200
        )
        found = asyncio.run(measured(world, rate, seconds, rounds))
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        for name, told in found.items():
            typer.echo(f"{name}: {told}")
    told = [value for value in found.values() if isinstance(value, dict)]
    raise typer.Exit(int(not all(t["within"] and t.get("fresh_within", True) for t in told)))


if __name__ == "__main__":
    typer.run(main)
