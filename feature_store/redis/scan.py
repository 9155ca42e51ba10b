"""Scans a Redis store in bounded steps, without the duplicates that SCAN may return."""

from __future__ import annotations

from collections.abc import AsyncIterator

from feature_store.redis.client import RedisClient
from feature_store.redis.layout import Layout
from feature_store.redis.replies import id_of
from feature_store.redis.server import BULK


async def scan_users(
    client: RedisClient, layout: Layout, pattern: str, batch_size: int = 4096
) -> AsyncIterator[list[int]]:
    """Yield every user with a key of the pattern; scans all keys of every server."""
    seen = set[int]()
    for node in range(client.masters):
        cursor = b"0"
        while True:
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", batch_size)
            cursor, keys = await client.on(node, scan)
            users = (layout.user_of(key) for key in keys)  # None for another program's keys
            fresh = {user for user in users if user is not None} - seen
            seen |= fresh
            yield list(fresh)
            if cursor == b"0":
                break


async def scan_partition(
    client: RedisClient, layout: Layout, partition: int, count: int
) -> AsyncIterator[list[int]]:
    """Yield the ids of one partition's items."""
    seen, cursor = set[int](), b"0"
    while True:
        cursor, members = await client.one(layout.scan_partition(partition, cursor, count), BULK)
        found = {member: id_of(member) for member in members}
        for member in (member for member, item in found.items() if item is None):
            client.faults.note("redis: malformed item id in a partition's set", member[:80])
        fresh = {item for item in found.values() if item is not None} - seen
        seen |= fresh
        yield list(fresh)
        if cursor == b"0":
            return
