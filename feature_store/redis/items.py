"""Reads and writes the item records of a Redis store, and announces what it wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import numpy as np

from feature_store.codec import ItemCodec
from feature_store.contents import Contents, Origin
from feature_store.contract import MISSING, Ids, ItemBatch, ItemRows
from feature_store.errors import StoreUnavailable
from feature_store.ids import checked_ids
from feature_store.redis.announcer import Announcer
from feature_store.redis.client import RedisClient
from feature_store.redis.layout import Layout
from feature_store.redis.scan import scan_partition
from feature_store.redis.server import BULK, REQUESTS
from feature_store.redis.topology import Command

ITEMS_PER_SCRIPT = 512
PARTITIONS_PER_BATCH = 16
PATCH_TRIES = 64
# The lock of each record that is being patched, by id: patches of one process wait for each other
# here, since each that overtook another would make it try again.
Patching = WeakValueDictionary[int, asyncio.Lock]


class ItemRecords:
    """Item records of one store; ``in_cluster``, of a cluster's."""

    def __init__(
        self,
        client: RedisClient,
        layout: Layout,
        codec: ItemCodec,
        changes_kept: int,
        *,
        in_cluster: bool,
    ) -> None:
        self._client, self._layout, self._codec = client, layout, codec
        self._kept, self._patching = changes_kept, Patching()
        self._announcer: Announcer | None = None  # cluster only: else the scripts announce
        if in_cluster:
            self._announcer = Announcer(client, layout, changes_kept, client.faults)

    async def read(self, ids: Ids, lane: int = REQUESTS) -> ItemBatch:
        in_cluster = self._announcer is not None
        groups = list(self._layout.by_partition(ids)) if in_cluster else [np.arange(len(ids))]
        groups = [group for group in groups if len(group)]
        commands = [self._layout.read_items(ids[group].tolist()) for group in groups]
        records: list[bytes | None] = [None] * len(ids)
        for group, reply in zip(groups, await self._client.all(commands, lane), strict=True):
            for at, record in zip(group.tolist(), reply, strict=True):
                records[at] = record
        return self._codec.decode(ids, records)

    async def put(self, ids: Ids, rows: ItemRows, contents: Contents | None) -> None:
        records = self._codec.encode(ids, rows, contents)
        kept, commands = self._kept, []
        if self._announcer is None:
            for at in range(0, len(ids), ITEMS_PER_SCRIPT):
                part = slice(at, at + ITEMS_PER_SCRIPT)
                put = self._layout.put_and_tell(ids[part].tolist(), records[part], kept)
                commands.append(put)
            await self._client.bulk(commands, batch=PARTITIONS_PER_BATCH)
            return
        for group in self._layout.by_partition(ids):
            for cut in np.split(group, range(ITEMS_PER_SCRIPT, len(group), ITEMS_PER_SCRIPT)):
                partition = int(ids[cut[0]]) % self._layout.partitions
                chosen = [records[at] for at in cut.tolist()]
                commands.append(self._layout.put_items(partition, ids[cut].tolist(), chosen))
        async with self._announced(self._announcer, ids):
            await self._client.bulk(commands, batch=PARTITIONS_PER_BATCH)

    @asynccontextmanager
    async def _announced(self, announcer: Announcer, ids: Ids) -> AsyncIterator[None]:
        """Announce a write before and after; also after a failure, as it may be made in part."""
        await announcer.before(ids.tolist())
        try:
            yield
        finally:
            await announcer.after(ids.tolist())

    async def delete(self, ids: Ids) -> int:
        """Delete records of distinct items; return how many there were."""
        if self._announcer is None:
            starts = range(0, len(ids), ITEMS_PER_SCRIPT)
            parts = [ids[s : s + ITEMS_PER_SCRIPT] for s in starts]
            deletions = [self._layout.delete_and_tell(part.tolist(), self._kept) for part in parts]
            return sum(await self._client.bulk(deletions, batch=PARTITIONS_PER_BATCH))
        commands = [
            self._layout.delete_items(
                int(ids[group[0]]) % self._layout.partitions, ids[group].tolist()
            )
            for group in self._layout.by_partition(ids)
        ]
        async with self._announced(self._announcer, ids):
            replies = await self._client.bulk(commands, batch=PARTITIONS_PER_BATCH)
        return sum(sum(r[:-1]) if isinstance(r, list) else int(r) for r in replies)

    async def patch(
        self, item_id: int, change: Callable[[ItemRows], None], origin: Origin | None
    ) -> bool:
        async with self._patching.setdefault(item_id, asyncio.Lock()):
            return await self._patch(item_id, change, origin)

    async def _patch(
        self, item_id: int, change: Callable[[ItemRows], None], origin: Origin | None
    ) -> bool:
        ids, key = checked_ids([item_id], "item id"), self._layout.item(item_id)
        for _ in range(PATCH_TRIES):
            record = await self._client.one(Command(("GET", key), key))
            if record is None:
                return False
            after = self._codec.patched(ids, record, change, origin)
            if self._announcer is None:
                swap = self._layout.swap_and_tell(item_id, record, after, self._kept)
                swapped = await self._client.one(swap)
            else:
                async with self._announced(self._announcer, ids):
                    swapped = await self._client.one(self._layout.swap_item(item_id, record, after))
            if swapped:
                return True
        raise StoreUnavailable(f"item {item_id}: {PATCH_TRIES} concurrent changes; try again")

    async def scan(self, batch_size: int) -> AsyncIterator[ItemBatch]:
        pending: list[int] = []
        for partition in range(self._layout.partitions):
            async for found in scan_partition(self._client, self._layout, partition, batch_size):
                pending += found
                while len(pending) >= batch_size:
                    yield await self._present(pending[:batch_size])
                    del pending[:batch_size]
        if pending:
            yield await self._present(pending)

    async def _present(self, item_ids: list[int]) -> ItemBatch:
        """Read items, without those deleted meanwhile."""
        batch = await self.read(np.array(item_ids, np.int64), BULK)
        there = batch.status != MISSING
        return batch.take(there)

    async def count(self) -> int:
        partitions = range(self._layout.partitions)
        return sum(await self._client.bulk([self._layout.count_partition(n) for n in partitions]))

    async def fault(self, item_id: int) -> str | None:
        key = self._layout.item(item_id)
        record = await self._client.one(Command(("GET", key), key))
        return None if record is None else self._codec.fault(item_id, record)

    async def close(self) -> None:
        if self._announcer is not None:
            await self._announcer.close()
