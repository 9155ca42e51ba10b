"""Who is master of what, and slots of a cluster on their way."""

from __future__ import annotations

from collections.abc import Callable

from tests.feature_store.redis_servers import ClusterGroup, Server


def role(server: Server) -> str:
    return str(server.client().role()[0], "ascii")


def replica_of(cluster: ClusterGroup, master: Server) -> Server:
    for *_, first, second in master.client().execute_command("CLUSTER", "SLOTS"):
        if first[1] == master.port:
            return cluster.by_port(second[1])
    raise LookupError(f"{master.port} has no replica")


def migrating(cluster: ClusterGroup, slot: int) -> tuple[Server, Server, Callable[[], None]]:
    """Start moving a slot; the last value ends the move."""
    source = cluster.master_of(slot)
    others = {cluster.master_of(other).port for other in range(0, 16_384, 500)} - {source.port}
    target = cluster.by_port(min(others))
    names = {
        s.port: s.client().execute_command("CLUSTER", "MYID").decode() for s in (source, target)
    }
    target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
    source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])

    def finish() -> None:
        for key in source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10_000):
            move(source, target, key)
        for server in (target, source):
            server.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[target.port])

    return source, target, finish


def move(source: Server, target: Server, key: bytes) -> None:
    source.client().execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
