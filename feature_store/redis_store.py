"""The store in Redis: one server, a master under Sentinel, or a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.codec import ItemCodec
from feature_store.contract import MISSING, Append, Changes, Ids, ItemBatch, ItemRows
from feature_store.errors import StoreCorrupt, StoreError, StoreUnavailable
from feature_store.ids import checked_id, checked_ids
from feature_store.options import StoreOptions
from feature_store.redis_endpoint import BULK, REQUESTS
from feature_store.redis_layout import Layout, meta_key
from feature_store.redis_link import Parts
from feature_store.redis_nodes import Command, Nodes, Reply
from feature_store.redis_replies import change_batch, history_of, info_of
from feature_store.schema import FeatureSchema
from feature_store.schema_record import STORE_FORMAT, parse, settled

BULK_PATIENCE_S = 5.0  # a step of a scan or a bulk write; those run beside requests, not in them
COMMANDS_PER_BATCH = 512
IDS_PER_CHANGE = 512
CHANGES_PER_ANSWER = 256
PATCH_TRIES = 64


class RedisStore:
    """``feature_store.contract.FeatureStore`` on the nodes of a URL."""

    def __init__(
        self, nodes: Nodes, schema: FeatureSchema, layout: Layout, options: StoreOptions, kind: str
    ) -> None:
        self.schema = schema
        self._nodes, self._layout, self._options, self._kind = nodes, layout, options, kind
        self._codec = ItemCodec(schema)
        self._budget_s = options.budget_ms / 1e3
        self._bulk_s = max(self._budget_s, BULK_PATIENCE_S)
        self._loop = asyncio.get_running_loop()
        self._closed = False

    @classmethod
    async def open(
        cls,
        nodes: Nodes,
        place: str,
        schema: FeatureSchema | None,
        options: StoreOptions,
        *,
        create: bool,
        kind: str,
    ) -> RedisStore:
        """The store on ``nodes``. StoreMismatch names what differs from ``schema``."""
        await nodes.ready()
        key = meta_key(options.prefix)
        deadline = asyncio.get_running_loop().time() + BULK_PATIENCE_S
        fields = Command(("HMGET", key, "format", "schema", "partitions"), key)
        [reply] = await nodes.call([fields], deadline)
        if isinstance(reply, StoreError):
            raise reply
        version, text, partitions = reply
        recorded = None if version is None or text is None else parse(place, version, text)
        chosen = settled(place, recorded, schema, create=create)
        if recorded is not None and not (partitions or b"").isdigit():
            raise StoreCorrupt(f"{place}: its count of partitions is damaged; load it again")
        count = options.partitions if recorded is None else int(partitions)
        store = cls(nodes, chosen, Layout(options.prefix, count), options, kind)
        if create and schema is not None:
            await store._record_schema()
        return store

    async def _record_schema(self) -> None:
        key = meta_key(self._options.prefix)
        text, partitions = self.schema.to_yaml(), self._layout.partitions
        fields: Parts = ("format", STORE_FORMAT, "schema", text, "partitions", partitions)
        await self._one(Command(("HSET", key, *fields), key), BULK)
        if not await self._one(self._layout.last_change(), BULK):
            await self._tell(())  # so that the log has an end from the start

    async def history(self, user_id: int) -> Ids | None:
        user, length = checked_id(user_id, "user id"), self.schema.history_length
        return history_of(user, await self._one(self._layout.read_history(user, length)))

    async def histories(self, user_ids: Sequence[int]) -> list[Ids | None]:
        users = [checked_id(user_id, "user id") for user_id in user_ids]
        length = self.schema.history_length
        replies = await self._all([self._layout.read_history(user, length) for user in users])
        return [history_of(user, reply) for user, reply in zip(users, replies, strict=True)]

    async def append(self, user_id: int, item_ids: Sequence[int], key: str | None = None) -> bool:
        [result] = await self.append_all([Append(user_id, item_ids, key)])
        if isinstance(result, StoreError):
            raise result
        return result

    async def append_all(self, appends: Sequence[Append]) -> list[bool | StoreError]:
        commands = [self._append(append) for append in appends]
        if not self._options.wait_replicas:
            replies = await self._call(commands)
            return [r if isinstance(r, StoreError) else bool(r) for r in replies]
        return await self._replicated(commands)

    def _append(self, append: Append) -> Command:
        checked_id(append.user_id, "user id")
        checked_ids(append.item_ids, "item id")
        options = self._options
        return self._layout.append(
            append, self.schema.history_length, options.history_ttl_s, options.idempotency_ttl_s
        )

    async def _replicated(self, commands: list[Command]) -> list[bool | StoreError]:
        """Appends that count once enough replicas have them; each is followed by its own WAIT."""
        wanted, wait_ms = self._options.wait_replicas, max(1, int(self._budget_s * 500))
        pairs = [
            pair
            for command in commands
            for pair in (command, Command(("WAIT", wanted, wait_ms), command.key))
        ]
        replies = await self._call(pairs, lane=BULK)
        results: list[bool | StoreError] = []
        for applied, copies in zip(replies[::2], replies[1::2], strict=True):
            failure = next((r for r in (applied, copies) if isinstance(r, StoreError)), None)
            if failure is None and copies < wanted:
                failure = StoreUnavailable(
                    f"the click is on {copies} of {wanted} replicas only: it may yet be lost"
                )
            results.append(failure or bool(applied))
        return results

    async def put_histories(self, histories: Mapping[int, Ids]) -> None:
        length, commands = self.schema.history_length, []
        for user_id, newest_first in histories.items():
            user = checked_id(user_id, "user id")
            kept = checked_ids(newest_first, "item id")[:length].tolist()
            ttl_s = self._options.history_ttl_s
            commands.append(self._layout.replace_history(user, kept, ttl_s))
        await self._bulk(commands)

    async def delete_history(self, user_id: int) -> bool:
        key = self._layout.history(checked_id(user_id, "user id"))
        return bool(await self._one(Command(("DEL", key), key)))

    async def scan_histories(self, batch_size: int = 1024) -> AsyncIterator[dict[int, Ids]]:
        """Walks the whole keyspace of every node in steps: for operators, not for requests."""
        seen: set[int] = set()
        async for users in self._scan_users(batch_size):
            fresh = [user for user in dict.fromkeys(users) if user not in seen]
            seen.update(fresh)
            commands = [
                self._layout.read_history(user, self.schema.history_length) for user in fresh
            ]
            found = zip(fresh, await self._bulk(commands), strict=True)
            batch = {user: history_of(user, reply) for user, reply in found}
            yield {user: ids for user, ids in batch.items() if ids is not None}

    async def count_histories(self) -> int:
        seen: set[int] = set()
        async for users in self._scan_users(4096):
            seen.update(users)
        return len(seen)

    async def _scan_users(self, batch_size: int) -> AsyncIterator[list[int]]:
        for node in range(self._nodes.masters):
            cursor = b"0"
            while True:
                pattern = self._layout.histories
                scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", batch_size)
                cursor, keys = await self._on(node, scan)
                yield [self._layout.user_of(key) for key in keys]
                if cursor == b"0":
                    break

    async def items(self, item_ids: Ids) -> ItemBatch:
        ids = checked_ids(item_ids, "item id")
        return await self._read_items(ids, REQUESTS)

    async def _read_items(self, ids: Ids, lane: int) -> ItemBatch:
        groups = [np.arange(len(ids))] if self._kind != "cluster" else list(self._groups(ids))
        groups = [group for group in groups if len(group)]
        commands = [self._layout.read_items(ids[group].tolist()) for group in groups]
        records: list[bytes | None] = [None] * len(ids)
        for group, reply in zip(groups, await self._all(commands, lane), strict=True):
            for at, record in zip(group.tolist(), reply, strict=True):
                records[at] = record
        return self._codec.decode(ids, records)

    async def put_items(self, item_ids: Ids, rows: ItemRows) -> None:
        ids = checked_ids(item_ids, "item id")
        records = self._codec.encode(ids, rows)
        commands = []
        for group in self._groups(ids):
            for part in np.split(group, range(COMMANDS_PER_BATCH, len(group), COMMANDS_PER_BATCH)):
                partition = int(ids[part[0]]) % self._layout.partitions
                chosen = [records[at] for at in part.tolist()]
                commands.append(self._layout.put_items(partition, ids[part].tolist(), chosen))
        await self._bulk(commands, batch=16)
        await self._tell(ids.tolist())

    async def delete_items(self, item_ids: Ids) -> int:
        ids = np.unique(checked_ids(item_ids, "item id"))
        commands = [
            self._layout.delete_items(
                int(ids[group[0]]) % self._layout.partitions, ids[group].tolist()
            )
            for group in self._groups(ids)
        ]
        replies = await self._bulk(commands, batch=16)
        await self._tell(ids.tolist())
        return sum(sum(r[:-1]) if isinstance(r, list) else int(r) for r in replies)

    async def patch_item(self, item_id: int, change: Callable[[ItemRows], None]) -> bool:
        ids, key = checked_ids([item_id], "item id"), self._layout.item(item_id)
        for _ in range(PATCH_TRIES):
            record = await self._one(Command(("GET", key), key))
            if record is None:
                return False
            if fault := self._codec.fault(item_id, record):
                raise StoreCorrupt(f"item {item_id}: {fault}; put it whole")
            row = self._codec.decode(ids, [record]).rows
            change(row)
            after = self._codec.encode(ids, row)[0]
            if await self._one(self._layout.swap_item(item_id, record, after)):
                await self._tell(ids.tolist())
                return True
        raise StoreUnavailable(f"item {item_id}: changed by others all the time; try again")

    async def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        pending: list[int] = []
        for partition in range(self._layout.partitions):
            async for found in self._scan_partition(partition, batch_size):
                pending += found
                while len(pending) >= batch_size:
                    yield await self._present(pending[:batch_size])
                    del pending[:batch_size]
        if pending:
            yield await self._present(pending)

    async def _present(self, item_ids: list[int]) -> ItemBatch:
        """The items that are still there."""
        batch = await self._read_items(np.array(item_ids, np.int64), BULK)
        there = batch.status != MISSING
        return ItemBatch(batch.ids[there], batch.rows[there], batch.status[there])

    async def _scan_partition(self, partition: int, count: int) -> AsyncIterator[list[int]]:
        cursor, seen = b"0", set[int]()
        while True:
            command = self._layout.scan_partition(partition, cursor, count)
            cursor, members = await self._one(command, BULK)
            fresh = {int(member) for member in members} - seen  # SSCAN may repeat itself
            seen |= fresh
            yield list(fresh)
            if cursor == b"0":
                return

    async def count_items(self) -> int:
        partitions = range(self._layout.partitions)
        return sum(await self._bulk([self._layout.count_partition(n) for n in partitions]))

    async def changes(self, cursor: str | None) -> Changes:
        if cursor is not None:
            command = self._layout.read_changes(cursor, CHANGES_PER_ANSWER)
            [reply] = await self._call([command])
            if told := change_batch(cursor, reply):
                return told
        last = await self._one(self._layout.last_change())
        end = last[0][0].decode() if last else "0-0"
        return Changes(end, np.zeros(0, np.int64), lost=cursor is not None)

    async def _tell(self, item_ids: Sequence[int]) -> None:
        """Tell the change log; an empty entry for no ids at all."""
        starts = range(0, max(1, len(item_ids)), IDS_PER_CHANGE)
        kept = self._options.changes_kept
        await self._bulk(
            [self._layout.tell_changes(item_ids[at : at + IDS_PER_CHANGE], kept) for at in starts]
        )

    async def fault(self, item_id: int) -> str | None:
        key = self._layout.item(checked_id(item_id, "item id"))
        record = await self._one(Command(("GET", key), key))
        return None if record is None else self._codec.fault(item_id, record)

    async def describe(self) -> dict[str, str | int]:
        nodes = [info_of(await self._on(node, ("INFO",))) for node in range(self._nodes.masters)]
        return {
            "backend": f"redis {self._kind}".strip(),
            "redis_version": nodes[0]["redis_version"],
            "nodes": len(nodes),
            "used_memory_bytes": sum(int(node["used_memory"]) for node in nodes),
            "maxmemory_policy": nodes[0]["maxmemory_policy"],
            "prefix": self._options.prefix,
            "partitions": self._layout.partitions,
            "item_record_bytes": self._codec.record_bytes,
        }

    async def get_note(self, name: str) -> bytes | None:
        key = self._layout.note(name)
        value: bytes | None = await self._one(Command(("GET", key), key))
        return value

    async def put_note(self, name: str, value: bytes | None) -> None:
        key = self._layout.note(name)
        parts = ("DEL", key) if value is None else ("SET", key, value)
        await self._one(Command(parts, key))

    async def ping(self) -> None:
        self._refuse_if_closed()
        for node in range(self._nodes.masters):
            await self._on(node, ("PING",), self._budget_s)

    async def close(self) -> None:
        self._closed = True
        await self._nodes.close()

    @property
    def open_breakers(self) -> list[str]:
        """Servers that are known not to answer."""
        return self._nodes.open_breakers

    def _groups(self, ids: Ids) -> Iterator[np.ndarray[Any, np.dtype[np.intp]]]:
        """Positions by partition."""
        if not len(ids):
            return
        partition = ids % self._layout.partitions
        order = np.argsort(partition, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(partition[order])) + 1)

    async def _call(self, commands: list[Command], lane: int = REQUESTS) -> list[Reply]:
        self._refuse_if_closed()
        if not commands:
            return []
        patience = self._budget_s if lane == REQUESTS else self._bulk_s
        return await self._nodes.call(commands, self._loop.time() + patience, lane=lane)

    async def _all(self, commands: list[Command], lane: int = REQUESTS) -> list[Reply]:
        replies = await self._call(commands, lane)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies

    async def _one(self, command: Command, lane: int = REQUESTS) -> Reply:
        return (await self._all([command], lane))[0]

    async def _bulk(self, commands: list[Command], batch: int = COMMANDS_PER_BATCH) -> list[Reply]:
        """Batch after batch on the lane that no request waits for."""
        replies: list[Reply] = []
        self._refuse_if_closed()
        for at in range(0, len(commands), batch):
            replies += await self._all(commands[at : at + batch], BULK)
        return replies

    async def _on(self, node: int, parts: Parts, patience_s: float | None = None) -> Reply:
        """The reply of one of the servers that hold data."""
        deadline = self._loop.time() + (patience_s or self._bulk_s)
        reply = await self._nodes.on(node, parts, deadline)
        if isinstance(reply, StoreError):
            raise reply
        return reply

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
