"""What an acknowledged write outlives, by the settings of the Redis servers that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")
UNREADABLE = "cannot be read (CONFIG GET is not permitted)"


def settings_of(reply: object) -> dict[str, str] | None:
    """The reply of CONFIG GET; None for another form."""
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
    """Of several servers, by their INFO and, where it could be read, CONFIG GET."""
    told: dict[str, str | int] = {}
    for name in SETTINGS:
        values = {UNREADABLE if found is None else found.get(name, "?") for found in config}
        told[name.replace("-", "_")] = " / ".join(sorted(values))
    replicas = [int(node.get("connected_slaves", "0")) for node in info]
    told["replicas"] = min(replicas, default=0)
    told["acknowledged_click"] = _meaning(info, config) + _copies(min(replicas), wait_replicas)
    return told


def _meaning(info: Sequence[Mapping[str, str]], config: Sequence[Mapping[str, str] | None]) -> str:
    """By the weakest server."""
    if any(node.get("aof_enabled") == "0" for node in info):
        saves = [bool(found["save"]) for found in config if found and "save" in found]
        if saves and not all(saves):
            return "in memory alone: lost when a server stops (appendonly no, save off)"
        return "in memory until the next snapshot: a crash or power cut loses what came since"
    if any("aof_enabled" not in node for node in info) or None in config:
        return "how soon it is on disk cannot be read: ask the provider of this Redis"
    fsync = {found.get("appendfsync", "?") for found in config if found is not None}
    if fsync == {"always"}:
        return "on disk before it is answered (appendfsync always)"
    if fsync <= {"always", "everysec"}:
        return "on disk within a second: a power cut loses up to that (appendfsync everysec)"
    return "on disk when the kernel writes it: a power cut loses what it had not (appendfsync no)"


def _copies(replicas: int, wait_replicas: int) -> str:
    if wait_replicas:
        return f"; on {wait_replicas} replicas before it is answered"
    if replicas:
        return "; on a replica soon after: a failover may lose the last ones"
    return ""
