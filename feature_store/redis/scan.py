"""Walking a Redis store in bounded steps. Redis may repeat itself in a scan; this does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

from feature_store.redis.client import RedisCalls
from feature_store.redis.layout import Layout
from feature_store.redis.replies import id_of
from feature_store.redis.server import BULK


async def scan_users(
    ask: RedisCalls, layout: Layout, batch_size: int = 4096
) -> AsyncIterator[list[int]]:
    """Every user with a history; passes over all keys of every node."""
    seen = set[int]()
    for node in range(ask.masters):
        cursor = b"0"
        while True:
            scan = ("SCAN", cursor, "MATCH", layout.histories, "COUNT", batch_size)
            cursor, keys = await ask.on(node, scan)
            users = (layout.user_of(key) for key in keys)  # another program's keys have none
            fresh = {user for user in users if user is not None} - seen
            seen |= fresh
            yield list(fresh)
            if cursor == b"0":
                break


async def scan_partition(
    ask: RedisCalls, layout: Layout, partition: int, count: int
) -> AsyncIterator[list[int]]:
    """The ids of one partition's items."""
    seen, cursor = set[int](), b"0"
    while True:
        cursor, members = await ask.one(layout.scan_partition(partition, cursor, count), BULK)
        found = {member: id_of(member) for member in members}
        for member in (member for member, item in found.items() if item is None):
            ask.oddities.note("redis: what is no item id in a partition's set", member[:80])
        fresh = {item for item in found.values() if item is not None} - seen
        seen |= fresh
        yield list(fresh)
        if cursor == b"0":
            return
