"""Describes the durability of an acknowledged write by the settings of its Redis servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

from feature_store.contract import SYNCED
from feature_store.errors import StoreRefused
from feature_store.redis.client import RedisClient
from feature_store.redis.replies import info_of, parsing_reply

SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")
RUN_ID_DIGITS = 12  # of 40
UNREADABLE = "cannot be read (CONFIG GET is not permitted)"


async def facts_of_servers(client: RedisClient, wait_replicas: int) -> dict[str, str | int]:
    """Facts about the servers that hold data, for operators."""
    nodes, config = [], []
    for node in range(client.masters):
        with parsing_reply("redis", "INFO"):
            nodes.append(info_of(await client.on(node, ("INFO",))))
        config.append(await _config(client, node))
    with parsing_reply("redis", "INFO"):
        uptimes = [int(node["uptime_in_seconds"]) for node in nodes if "uptime_in_seconds" in node]
        return {
            "redis_version": nodes[0].get("redis_version", "?"),
            "nodes": len(nodes),
            **_run_ids(nodes),
            **await _slots(client),
            "used_memory_bytes": sum(int(node.get("used_memory", "0")) for node in nodes),
            "evicted_keys": sum(int(node.get("evicted_keys", "0")) for node in nodes),
            "uptime_seconds": min(uptimes) if uptimes else "?",
            **durability(nodes, config, wait_replicas),
        }


def _run_ids(nodes: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What tells a server's run from its next one, and from another server's; unless one of them
    does not say."""
    found = sorted(node.get("run_id", "")[:RUN_ID_DIGITS] for node in nodes)
    return {"run_ids": " ".join(found)} if all(found) else {}


async def _slots(client: RedisClient) -> dict[str, str]:
    """A digest of the masters' slots, where there are several masters."""
    if client.masters == 1:
        return {}
    with parsing_reply("redis", "CLUSTER SLOTS"):
        reply = await client.on(0, ("CLUSTER", "SLOTS"))
        owners = sorted((first, last, master[2]) for first, last, master, *_ in reply)
    return {"slots": sha256(repr(owners).encode()).hexdigest()[:RUN_ID_DIGITS]}


async def _config(client: RedisClient, node: int) -> dict[str, str] | None:
    """Read settings of the ``node``-th server; None if CONFIG is not permitted."""
    try:  # one name per call: before Redis 7 CONFIG GET takes one
        found = [await client.on(node, ("CONFIG", "GET", name)) for name in SETTINGS]
    except StoreRefused:
        return None
    parts = [settings_of(reply) for reply in found]
    return {name: value for part in parts if part for name, value in part.items()}


def settings_of(reply: object) -> dict[str, str] | None:
    """Parse the reply of CONFIG GET; None if it has another form."""
    if isinstance(reply, dict):
        reply = [part for pair in reply.items() for part in pair]
    if not isinstance(reply, list) or not all(isinstance(part, bytes) for part in reply):
        return None
    texts = [part.decode(errors="replace") for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=False))


def durability(
    info: Sequence[Mapping[str, str]],
    config: Sequence[Mapping[str, str] | None],
    wait_replicas: int,
) -> dict[str, str | int]:
    """Durability over several servers, from their INFO and, where permitted, CONFIG GET."""
    settings: dict[str, str | int] = {}
    for name in SETTINGS:
        field = name.replace("-", "_")  # INFO has those of memory
        values = {
            node.get(field, UNREADABLE) if found is None else found.get(name, "?")
            for node, found in zip(info, config, strict=True)
        }
        settings[field] = " / ".join(sorted(values))
    replicas = [int(node.get("connected_slaves", "0")) for node in info]
    settings["replicas"] = min(replicas, default=0)
    settings["acknowledged_click"] = _meaning(info, config) + _copies(min(replicas), wait_replicas)
    return settings


def _meaning(info: Sequence[Mapping[str, str]], config: Sequence[Mapping[str, str] | None]) -> str:
    """Durability of the least durable server."""
    if any(node.get("aof_enabled") == "0" for node in info):
        saves = [bool(found["save"]) for found in config if found and "save" in found]
        if saves and not all(saves):
            return "in memory alone: lost when a server stops (appendonly no, save off)"
        return "in memory until the next snapshot: a crash or power cut loses later writes"
    if any("aof_enabled" not in node for node in info) or None in config:
        return "on disk at an unknown time (settings not readable): ask the provider of this Redis"
    fsync = {found.get("appendfsync", "?") for found in config if found is not None}
    if fsync == {"always"}:
        return f"{SYNCED} (appendfsync always)"
    if fsync <= {"always", "everysec"}:
        return "on disk within a second: a power cut loses up to 1 s (appendfsync everysec)"
    return "on disk when the kernel flushes it: a power cut loses the rest (appendfsync no)"


def _copies(replicas: int, wait_replicas: int) -> str:
    if wait_replicas:
        return f"; on {wait_replicas} replicas before it is answered"
    if replicas:
        return "; replicated asynchronously: a failover may lose the latest writes"
    return ""
