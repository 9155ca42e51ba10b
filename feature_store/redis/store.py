"""The store on Redis: one server, a master under Sentinel, or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from feature_store.codec import ItemCodec
from feature_store.contract import MISSING, Append, Changes, Ids, ItemBatch, ItemRows
from feature_store.errors import (
    StoreCorrupt,
    StoreError,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
)
from feature_store.faults import FaultLog
from feature_store.ids import checked_id, checked_ids
from feature_store.options import StoreOptions
from feature_store.redis.announcer import Announcer
from feature_store.redis.client import BULK_PATIENCE_S, RedisClient, with_key
from feature_store.redis.connection import Parts
from feature_store.redis.durability import SETTINGS, durability, settings_of
from feature_store.redis.layout import Layout, meta_key
from feature_store.redis.replies import change_batch, history_of, id_of, info_of, parsing_reply
from feature_store.redis.scan import scan_partition, scan_users
from feature_store.redis.server import BULK, REQUESTS
from feature_store.redis.topology import Command, Topology
from feature_store.schema import FeatureSchema
from feature_store.schema_record import format_of, parse, settled
from feature_store.text_ids import TextIds

ITEMS_PER_SCRIPT = 512
PARTITIONS_PER_BATCH = 16
CHANGES_PER_ANSWER = 256
PATCH_TRIES = 64
MOST_PARTITIONS = 16_384  # as many as a cluster has slots


class RedisStore:
    """``feature_store.contract.FeatureStore`` on the servers of a URL."""

    def __init__(
        self,
        nodes: Topology,
        schema: FeatureSchema,
        layout: Layout,
        options: StoreOptions,
        faults: FaultLog,
        kind: str,
    ) -> None:
        self.schema = schema
        self.text_ids: TextIds | None = None
        self._faults = faults
        self._layout, self._options, self._kind = layout, options, kind
        self._client = RedisClient(nodes, options.budget_ms / 1e3, faults)
        self._codec = ItemCodec(schema)
        self._announcer: Announcer | None = None  # cluster only: else the scripts announce
        if kind == "cluster":
            self._announcer = Announcer(self._client, layout, options.changes_kept, faults)

    @classmethod
    async def open(
        cls,
        nodes: Topology,
        place: str,
        schema: FeatureSchema | None,
        options: StoreOptions,
        faults: FaultLog,
        *,
        create: bool,
        kind: str,
    ) -> RedisStore:
        """Open the store on ``nodes``. StoreMismatch names what differs from ``schema``."""
        await nodes.ready()
        key = meta_key(options.prefix)
        deadline = asyncio.get_running_loop().time() + BULK_PATIENCE_S
        fields = Command(("HMGET", key, "format", "schema", "partitions"), key)
        [reply] = await nodes.call([fields], deadline)
        if isinstance(reply, StoreError):
            raise with_key(reply, fields)
        with parsing_reply(place, "HMGET"):
            version, text, partitions = reply
        recorded = None if version is None or text is None else parse(place, version, text)
        chosen = settled(place, recorded, schema, create=create)
        count = options.partitions if recorded is None else id_of(partitions)
        if count is None or not 1 <= count <= MOST_PARTITIONS:
            raise StoreCorrupt(f"{place}: its partition count is damaged; load it again")
        store = cls(nodes, chosen, Layout(options.prefix, count), options, faults, kind)
        if create and schema is not None:
            await store._record_schema()
        return store

    async def _record_schema(self) -> None:
        key = meta_key(self._options.prefix)
        text, partitions = self.schema.to_yaml(), self._layout.partitions
        fields: Parts = (
            "format",
            format_of(self.text_ids),
            "schema",
            text,
            "partitions",
            partitions,
        )
        await self._client.one(Command(("HSET", key, *fields), key), BULK)
        if not await self._client.one(self._layout.last_change(), BULK):
            first = self._layout.tell_changes((), self._options.changes_kept)
            await self._client.one(first, BULK)  # so that the log has an end from the start

    async def history(self, user_id: int) -> Ids | None:
        user, length = checked_id(user_id, "user id"), self.schema.history_length
        return history_of(user, await self._client.one(self._layout.read_history(user, length)))

    async def histories(self, user_ids: Sequence[int]) -> list[Ids | None]:
        users = [checked_id(user_id, "user id") for user_id in user_ids]
        length = self.schema.history_length
        replies = await self._client.all(
            [self._layout.read_history(user, length) for user in users]
        )
        return [history_of(user, reply) for user, reply in zip(users, replies, strict=True)]

    async def append(self, user_id: int, item_ids: Sequence[int], key: str | None = None) -> bool:
        [result] = await self.append_all([Append(user_id, item_ids, key)])
        if isinstance(result, StoreError):
            raise result
        return result

    async def append_all(self, appends: Sequence[Append]) -> list[bool | StoreError]:
        commands = [self._append(append) for append in appends]
        if not self._options.wait_replicas:
            replies = await self._client.each(commands)
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
        """Append, each followed by its own WAIT; one on too few replicas is an error."""
        wanted, wait_ms = self._options.wait_replicas, max(1, int(self._options.budget_ms / 2))
        pairs = [
            pair
            for command in commands
            for pair in (command, Command(("WAIT", wanted, wait_ms), command.key))
        ]
        replies = await self._client.each(pairs, BULK)
        results: list[bool | StoreError] = []
        for applied, copies in zip(replies[::2], replies[1::2], strict=True):
            failure = next((r for r in (applied, copies) if isinstance(r, StoreError)), None)
            if failure is None and copies < wanted:
                failure = StoreUnavailable(
                    f"the click is on only {copies} of {wanted} replicas: it may be lost",
                    unknown=True,
                )
            results.append(failure or bool(applied))
        return results

    async def put_histories(
        self, histories: Mapping[int, Ids], texts: Mapping[int, str] | None = None
    ) -> None:
        length, commands = self.schema.history_length, []
        for user_id, newest_first in histories.items():
            user = checked_id(user_id, "user id")
            kept = checked_ids(newest_first, "item id")[:length].tolist()
            ttl_s = self._options.history_ttl_s
            commands.append(self._layout.replace_history(user, kept, ttl_s))
        await self._client.bulk(commands)

    async def delete_history(self, user_id: int) -> bool:
        key = self._layout.history(checked_id(user_id, "user id"))
        return bool(await self._client.one(Command(("DEL", key), key)))

    async def scan_histories(self, batch_size: int = 1024) -> AsyncIterator[dict[int, Ids]]:
        """Scan the whole keyspace of every server in steps: for operators, not for requests."""
        async for users in scan_users(self._client, self._layout, batch_size):
            length = self.schema.history_length
            replies = await self._client.bulk([self._layout.read_history(u, length) for u in users])
            found = zip(users, replies, strict=True)
            histories = {user: history_of(user, reply) for user, reply in found}
            yield {user: ids for user, ids in histories.items() if ids is not None}

    async def count_histories(self) -> int:
        return sum([len(users) async for users in scan_users(self._client, self._layout)])

    async def items(self, item_ids: Ids) -> ItemBatch:
        ids = checked_ids(item_ids, "item id")
        return await self._read_items(ids, REQUESTS)

    async def _read_items(self, ids: Ids, lane: int) -> ItemBatch:
        groups = [np.arange(len(ids))] if self._kind != "cluster" else list(self._groups(ids))
        groups = [group for group in groups if len(group)]
        commands = [self._layout.read_items(ids[group].tolist()) for group in groups]
        records: list[bytes | None] = [None] * len(ids)
        for group, reply in zip(groups, await self._client.all(commands, lane), strict=True):
            for at, record in zip(group.tolist(), reply, strict=True):
                records[at] = record
        return self._codec.decode(ids, records)

    async def put_items(self, item_ids: Ids, rows: ItemRows) -> None:
        ids = checked_ids(item_ids, "item id")
        records = self._codec.encode(ids, rows)
        kept, commands = self._options.changes_kept, []
        if self._announcer is None:
            for at in range(0, len(ids), ITEMS_PER_SCRIPT):
                part = slice(at, at + ITEMS_PER_SCRIPT)
                put = self._layout.put_and_tell(ids[part].tolist(), records[part], kept)
                commands.append(put)
            await self._client.bulk(commands, batch=PARTITIONS_PER_BATCH)
            return
        for group in self._groups(ids):
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

    async def delete_items(self, item_ids: Ids) -> int:
        ids = np.unique(checked_ids(item_ids, "item id"))
        if self._announcer is None:
            starts = range(0, len(ids), ITEMS_PER_SCRIPT)
            kept = self._options.changes_kept
            parts = [ids[s : s + ITEMS_PER_SCRIPT] for s in starts]
            deletions = [self._layout.delete_and_tell(part.tolist(), kept) for part in parts]
            return sum(await self._client.bulk(deletions, batch=PARTITIONS_PER_BATCH))
        commands = [
            self._layout.delete_items(
                int(ids[group[0]]) % self._layout.partitions, ids[group].tolist()
            )
            for group in self._groups(ids)
        ]
        async with self._announced(self._announcer, ids):
            replies = await self._client.bulk(commands, batch=PARTITIONS_PER_BATCH)
        return sum(sum(r[:-1]) if isinstance(r, list) else int(r) for r in replies)

    async def patch_item(self, item_id: int, change: Callable[[ItemRows], None]) -> bool:
        ids, key = checked_ids([item_id], "item id"), self._layout.item(item_id)
        for _ in range(PATCH_TRIES):
            record = await self._client.one(Command(("GET", key), key))
            if record is None:
                return False
            if fault := self._codec.fault(item_id, record):
                raise StoreCorrupt(f"item {item_id}: {fault}; replace the whole item")
            row = self._codec.decode(ids, [record]).rows
            change(row)
            after = self._codec.encode(ids, row)[0]
            if self._announcer is None:
                kept = self._options.changes_kept
                swap = self._layout.swap_and_tell(item_id, record, after, kept)
                swapped = await self._client.one(swap)
            else:
                async with self._announced(self._announcer, ids):
                    swapped = await self._client.one(self._layout.swap_item(item_id, record, after))
            if swapped:
                return True
        raise StoreUnavailable(f"item {item_id}: {PATCH_TRIES} concurrent changes; try again")

    async def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
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
        batch = await self._read_items(np.array(item_ids, np.int64), BULK)
        there = batch.status != MISSING
        return ItemBatch(batch.ids[there], batch.rows[there], batch.status[there])

    async def count_items(self) -> int:
        partitions = range(self._layout.partitions)
        return sum(await self._client.bulk([self._layout.count_partition(n) for n in partitions]))

    async def changes(self, cursor: str | None) -> Changes:
        if cursor is not None:
            command = self._layout.read_changes(cursor, CHANGES_PER_ANSWER)
            [reply] = await self._client.each([command])
            with parsing_reply("redis", "XRANGE"):
                found = change_batch(cursor, reply)
            if found:
                for entry in found[1]:
                    name = self._layout.changes.decode()
                    self._faults.note("change log: malformed entry", f"{name}: {entry}")
                return found[0]
        last = await self._client.one(self._layout.last_change())
        with parsing_reply("redis", "XREVRANGE"):
            end = last[0][0].decode() if last else "0-0"
        return Changes(end, np.zeros(0, np.int64), lost=cursor is not None)

    async def name_items(self, texts: Mapping[int, str]) -> None:
        raise StoreMismatch("redis: text ids are not kept yet")

    async def item_texts(self, item_ids: Ids) -> list[str | None]:
        return [None] * len(item_ids)

    async def user_texts(self, user_ids: Sequence[int]) -> list[str | None]:
        return [None] * len(user_ids)

    async def fault(self, item_id: int) -> str | None:
        key = self._layout.item(checked_id(item_id, "item id"))
        record = await self._client.one(Command(("GET", key), key))
        return None if record is None else self._codec.fault(item_id, record)

    async def describe(self) -> dict[str, str | int]:
        nodes, config = [], []
        for node in range(self._client.masters):
            with parsing_reply("redis", "INFO"):
                nodes.append(info_of(await self._client.on(node, ("INFO",))))
            config.append(await self._config(node))
        with parsing_reply("redis", "INFO"):
            memory = sum(int(node.get("used_memory", "0")) for node in nodes)
            lasting = durability(nodes, config, self._options.wait_replicas)
        return {
            "backend": f"redis {self._kind}".strip(),
            "redis_version": nodes[0].get("redis_version", "?"),
            "nodes": len(nodes),
            "used_memory_bytes": memory,
            **lasting,
            "prefix": self._options.prefix,
            "partitions": self._layout.partitions,
            "item_record_bytes": self._codec.record_bytes,
        }

    async def _config(self, node: int) -> dict[str, str] | None:
        """Read settings of the ``node``-th server; None if CONFIG is not permitted."""
        try:  # one name per call: before Redis 7 CONFIG GET takes one
            found = [await self._client.on(node, ("CONFIG", "GET", name)) for name in SETTINGS]
        except StoreRefused:
            return None
        parts = [settings_of(reply) for reply in found]
        return {name: value for part in parts if part for name, value in part.items()}

    async def get_note(self, name: str) -> bytes | None:
        key = self._layout.note(name)
        value: bytes | None = await self._client.one(Command(("GET", key), key))
        return value

    async def put_note(self, name: str, value: bytes | None) -> None:
        key = self._layout.note(name)
        parts = ("DEL", key) if value is None else ("SET", key, value)
        await self._client.one(Command(parts, key))

    async def ping(self) -> None:
        for node in range(self._client.masters):
            await self._client.on(node, ("PING",), REQUESTS)

    async def close(self) -> None:
        if self._announcer is not None:
            await self._announcer.close()
        await self._client.close()

    @property
    def odd_replies(self) -> int:
        return self._faults.count

    @property
    def open_breakers(self) -> list[str]:
        """Names of the servers whose breaker is open."""
        return self._client.open_breakers

    def _groups(self, ids: Ids) -> Iterator[np.ndarray[Any, np.dtype[np.intp]]]:
        """Group positions by partition."""
        if not len(ids):
            return
        partition = ids % self._layout.partitions
        order = np.argsort(partition, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(partition[order])) + 1)
