"""The embedded store: histories and items in an LMDB folder that several processes may share.

Reads are memory look-ups and run inline in the event loop. Writes go through one thread with a
bounded queue (``feature_store.lmdb.writer``): neither an fsync nor another process's lock delays a
request beyond its budget.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from feature_store.codec import ItemCodec, decode_history, encode_history
from feature_store.contract import Append, Changes, Ids, ItemBatch, ItemRows
from feature_store.errors import StoreCorrupt, StoreError, StoreUnavailable
from feature_store.faults import FaultLog
from feature_store.ids import checked_id, checked_ids
from feature_store.lmdb.change_log import ChangeLog, SeenKeys
from feature_store.lmdb.environment import LmdbEnvironment, Txn, acquire, release
from feature_store.lmdb.names import ITEM, USER, Names
from feature_store.lmdb.writer import LmdbWriter
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema
from feature_store.schema_record import format_of, parse, settled, settled_ids
from feature_store.text_ids import TextIds

T = TypeVar("T")
_key = struct.Struct(">Q").pack  # big-endian, so that LMDB's order is the ids' order


class LmdbStore:
    """``feature_store.contract.FeatureStore`` in one folder."""

    def __init__(
        self,
        environment: LmdbEnvironment,
        schema: FeatureSchema,
        text_ids: TextIds | None,
        options: StoreOptions,
    ) -> None:
        self.schema, self.text_ids = schema, text_ids
        self._environment: LmdbEnvironment | None = environment
        self._codec = ItemCodec(schema)
        self._faults = FaultLog()
        self._changes = ChangeLog(environment, options.changes_kept, self._faults)
        self._seen = SeenKeys(environment, options.idempotency_ttl_s)
        self._names = Names(environment, mapped=text_ids is not None)
        self._writer = LmdbWriter(environment, options.write_budget_s)

    @classmethod
    def open(
        cls, path: Path, schema: FeatureSchema | None, options: StoreOptions, *, create: bool
    ) -> LmdbStore:
        """Open the store at ``path``. StoreMismatch names what differs from ``schema``."""
        create_now = create and schema is not None
        names = options.ids == "mapped"
        environment = acquire(path, create=create_now, read_only=options.read_only, names=names)
        try:
            place, (version, text, key) = str(environment.path), _read_record(environment)
            recorded = None if version is None or text is None else parse(place, version, text)
            chosen = settled(place, recorded, schema, create=create)
            ids = settled_ids(place, version, key, options.ids)
            return cls(environment, chosen, ids, options)
        except BaseException:
            release(environment)
            raise

    async def record_schema(self) -> None:
        """Record the format, schema and kind of ids in the store."""
        await self._write(self._record_schema)

    def _record_schema(self, txn: Txn) -> None:
        meta = self._env().db["meta"]
        txn.put(b"format", str(format_of(self.schema, self.text_ids)).encode(), db=meta)
        txn.put(b"schema", self.schema.to_yaml().encode(), db=meta)
        if self.text_ids is not None:
            kept = txn.get(b"id_key", db=meta)  # another process may have just created the store
            self.text_ids = self.text_ids if kept is None else TextIds(kept)
            txn.put(b"id_key", self.text_ids.key, db=meta)
        self._changes.begin(txn)

    async def history(self, user_id: int) -> Ids | None:
        user, env = checked_id(user_id, "user id"), self._env()
        record = env.get(_key(user), env.db["histories"])
        if record is None:
            return None
        return decode_history(user, record)[: self.schema.history_length]

    async def histories(self, user_ids: Sequence[int]) -> list[Ids | None]:
        users = [checked_id(user_id, "user id") for user_id in user_ids]
        env = self._env()
        db = env.db["histories"]
        records = env.read(lambda txn: [txn.get(_key(user), db=db) for user in users])
        longest = self.schema.history_length
        return [
            None if record is None else decode_history(user, record)[:longest]
            for user, record in zip(users, records, strict=True)
        ]

    async def append(self, user_id: int, item_ids: Sequence[int], key: str | None = None) -> bool:
        change = self._appending(Append(user_id, item_ids, key))
        return await self._write(change)

    async def append_all(self, appends: Sequence[Append]) -> list[bool | StoreError]:
        changes = [self._appending(append) for append in appends]

        def change(txn: Txn) -> list[bool | StoreError]:
            results: list[bool | StoreError] = []
            for one in changes:
                try:
                    results.append(one(txn))
                except StoreError as error:  # raised before it wrote anything
                    results.append(error)
            return results

        return await self._write(change)

    def _appending(self, append: Append) -> Callable[[Txn], bool]:
        user, env = checked_id(append.user_id, "user id"), self._env()
        newest_first = checked_ids(append.item_ids, "item id")[::-1]
        db = env.db["histories"]
        if append.user_text is not None:
            self._names.refuse_numeric()

        def change(txn: Txn) -> bool:
            record = txn.get(_key(user), db=db)
            before = newest_first[:0] if record is None else decode_history(user, record)
            if append.user_text is not None and len(newest_first):
                self._names.put(txn, USER, {user: append.user_text})
            if append.key is not None and not self._seen.first_time(txn, user, append.key):
                return False
            after = np.concatenate([newest_first, before])[: self.schema.history_length]
            if len(after):
                txn.put(_key(user), encode_history(user, after), db=db)
            return True

        return change

    async def put_histories(
        self, histories: Mapping[int, Ids], texts: Mapping[int, str] | None = None
    ) -> None:
        env, pairs, kept_users, emptied = self._env(), [], [], []
        for user_id, newest_first in sorted(histories.items()):
            user = checked_id(user_id, "user id")
            kept = checked_ids(newest_first, "item id")[: self.schema.history_length]
            if len(kept):
                pairs.append((_key(user), encode_history(user, kept)))
                kept_users.append(user)
            else:
                emptied.append(user)

        def change(txn: Txn) -> None:
            if texts:
                self._names.put(txn, USER, {user: texts[user] for user in kept_users})
            with txn.cursor(env.db["histories"]) as cursor:
                cursor.putmulti(pairs)
            for user in emptied:
                self._names.delete(txn, USER, user)
                txn.delete(_key(user), db=env.db["histories"])

        await self._write(change)

    async def delete_history(self, user_id: int) -> bool:
        user, env = checked_id(user_id, "user id"), self._env()

        def change(txn: Txn) -> bool:
            self._names.delete(txn, USER, user)
            return txn.delete(_key(user), db=env.db["histories"])

        return await self._write(change)

    async def scan_histories(self, batch_size: int = 1024) -> AsyncIterator[dict[int, Ids]]:
        async for ids, records in self._scan("histories", batch_size):
            users = ids.tolist()
            yield {u: decode_history(u, r) for u, r in zip(users, records, strict=True)}

    async def count_histories(self) -> int:
        return self._count("histories")

    async def items(self, item_ids: Ids) -> ItemBatch:
        ids, env = checked_ids(item_ids, "item id"), self._env()
        keys, db = _keys(ids), env.db["items"]
        records = env.read(lambda txn: [txn.get(key, db=db) for key in keys])
        return self._codec.decode(ids, records)

    async def put_items(self, item_ids: Ids, rows: ItemRows) -> None:
        ids, env = checked_ids(item_ids, "item id"), self._env()
        order = np.argsort(ids, kind="stable")  # LMDB inserts in key order fastest
        pairs = list(
            zip(_keys(ids[order]), self._codec.encode(ids[order], rows[order]), strict=True)
        )

        def change(txn: Txn) -> None:
            with txn.cursor(env.db["items"]) as cursor:
                cursor.putmulti(pairs)
            self._changes.add(txn, ids)

        await self._write(change)

    async def delete_items(self, item_ids: Ids) -> int:
        ids, env = checked_ids(item_ids, "item id"), self._env()
        db = env.db["items"]

        def change(txn: Txn) -> int:
            gone = [at for at, key in enumerate(_keys(ids)) if txn.delete(key, db=db)]
            self._changes.add(txn, ids[gone])
            return len(gone)

        return await self._write(change)

    async def patch_item(self, item_id: int, change: Callable[[ItemRows], None]) -> bool:
        ids, env = checked_ids([item_id], "item id"), self._env()
        db, key = env.db["items"], _keys(ids)[0]

        def patch(txn: Txn) -> bool:
            record = txn.get(key, db=db)
            if record is None:
                return False
            if fault := self._codec.fault(item_id, record):
                raise StoreCorrupt(f"item {item_id}: {fault}; replace the whole item")
            row = self._codec.decode(ids, [record]).rows
            change(row)
            txn.put(key, self._codec.encode(ids, row)[0], db=db)
            self._changes.add(txn, ids)
            return True

        return await self._write(patch)

    async def changes(self, cursor: str | None) -> Changes:
        self._env()
        return self._changes.since(cursor)

    async def name_items(self, texts: Mapping[int, str]) -> None:
        checked_ids(list(texts), "item id")
        await self._write(lambda txn: self._names.put(txn, ITEM, texts))

    async def item_texts(self, item_ids: Ids) -> list[str | None]:
        self._env()
        return self._names.texts(ITEM, checked_ids(item_ids, "item id").tolist())

    async def user_texts(self, user_ids: Sequence[int]) -> list[str | None]:
        self._env()
        return self._names.texts(USER, [checked_id(user, "user id") for user in user_ids])

    async def fault(self, item_id: int) -> str | None:
        key, env = _key(checked_id(item_id, "item id")), self._env()
        record = env.read(lambda txn: txn.get(key, db=env.db["items"]))
        return None if record is None else self._codec.fault(item_id, record)

    async def describe(self) -> dict[str, str | int]:
        env = self._env()
        return {
            "backend": "lmdb",
            "path": str(env.path),
            "bytes_on_disk": env.bytes_on_disk(),
            "acknowledged_click": (
                "on disk before it is answered (fsync)"
                if env.syncs
                else "on disk when the kernel flushes it: a power cut loses the rest"
            ),
            "ids": "numeric" if self.text_ids is None else "mapped",
            "item_record_bytes": self._codec.record_bytes,
        }

    async def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        async for ids, records in self._scan("items", batch_size):
            yield await asyncio.to_thread(self._codec.decode, ids, records)

    async def count_items(self) -> int:
        return self._count("items")

    async def get_note(self, name: str) -> bytes | None:
        env = self._env()
        return env.read(lambda txn: txn.get(name.encode(), db=env.db["notes"]))

    async def put_note(self, name: str, value: bytes | None) -> None:
        key, env = name.encode(), self._env()

        def change(txn: Txn) -> None:
            if value is None:
                txn.delete(key, db=env.db["notes"])
            else:
                txn.put(key, value, db=env.db["notes"])

        await self._write(change)

    @property
    def odd_replies(self) -> int:
        return self._faults.count

    @property
    def open_breakers(self) -> list[str]:
        return []

    async def ping(self) -> None:
        self._count("items")

    async def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            await self._writer.close()

    def _env(self) -> LmdbEnvironment:
        if self._environment is None:
            raise StoreUnavailable("the store is closed")
        return self._environment

    def _count(self, database: str) -> int:
        env = self._env()
        return env.read(lambda txn: txn.stat(env.db[database])["entries"])

    async def _write(self, change: Callable[[Txn], T]) -> T:
        self._env()
        return await self._writer.write(change)

    async def _scan(self, database: str, batch_size: int) -> AsyncIterator[tuple[Ids, list[bytes]]]:
        """Yield (ids, records) in id order, each batch from its own short read transaction."""
        env, start = self._env(), _key(0)

        def look(txn: Txn) -> list[tuple[bytes, bytes]]:
            with txn.cursor(env.db[database]) as cursor:
                found = cursor.set_range(start)
                return (
                    [pair for pair, _ in zip(cursor.iternext(), range(batch_size), strict=False)]
                    if found
                    else []
                )

        while pairs := await asyncio.to_thread(self._env().read, look):
            keys = b"".join(key for key, _ in pairs)
            yield np.frombuffer(keys, ">u8").astype(np.int64), [record for _, record in pairs]
            start = pairs[-1][0] + b"\0"  # the first key after the last one seen


async def connect_lmdb(
    path: Path, schema: FeatureSchema | None, options: StoreOptions, *, create: bool
) -> LmdbStore:
    """Open the store, as ``feature_store.connect``."""
    store = await asyncio.to_thread(LmdbStore.open, path, schema, options, create=create)
    if create and schema is not None:
        try:
            await store.record_schema()
        except BaseException:
            await store.close()
            raise
    return store


def _keys(ids: Ids) -> list[bytes]:
    packed = ids.astype(">u8").tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


def _read_record(environment: LmdbEnvironment) -> list[bytes | None]:
    """The recorded format, schema and key of text ids."""
    meta, names = environment.db["meta"], (b"format", b"schema", b"id_key")
    return environment.read(lambda txn: [txn.get(name, db=meta) for name in names])
