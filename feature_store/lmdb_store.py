"""The embedded store: histories and items in an LMDB folder that several processes may share.

Reads happen inline in the event loop: they are memory look-ups of microseconds. Writes go through
one thread, so that a commit (an fsync) or another process's loader never holds up a request.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from feature_store.codec import ItemCodec, decode_history, encode_history
from feature_store.contract import Ids, ItemBatch, ItemRows
from feature_store.errors import StoreCorrupt, StoreMismatch, StoreUnavailable
from feature_store.ids import checked_id, checked_ids
from feature_store.lmdb_environment import LmdbEnvironment, Txn, acquire, release
from feature_store.schema import FeatureSchema

T = TypeVar("T")
STORE_FORMAT = 1
_key = struct.Struct(">Q").pack  # big-endian, so that LMDB's order is the ids' order


class LmdbStore:
    """``feature_store.contract.FeatureStore`` in one folder."""

    def __init__(self, environment: LmdbEnvironment, schema: FeatureSchema) -> None:
        self.schema = schema
        self._environment: LmdbEnvironment | None = environment
        self._codec = ItemCodec(schema)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lmdb-writer")

    @classmethod
    def open(cls, path: Path, schema: FeatureSchema | None, *, create: bool) -> LmdbStore:
        """The store at ``path``. StoreMismatch names what differs from ``schema``."""
        environment = acquire(path, create=create)
        try:
            recorded = _recorded_schema(environment)
            if recorded is None and not (create and schema):
                raise StoreMismatch(f"{path}: holds no schema; load it with `--schema`")
            if create and schema is not None:
                _refuse_differences(path, recorded, schema)
                environment.write(lambda txn: _record(environment, txn, schema))
            elif schema is not None:
                _refuse_differences(path, recorded, schema)
            chosen = schema or recorded
            assert chosen is not None
            return cls(environment, chosen)
        except BaseException:
            release(environment)
            raise

    async def history(self, user_id: int) -> Ids | None:
        key = _key(checked_id(user_id, "user id"))
        env = self._env()
        record = env.read(lambda txn: txn.get(key, db=env.db["histories"]))
        if record is None:
            return None
        return decode_history(user_id, record)[: self.schema.history_length]

    async def append(self, user_id: int, item_ids: Sequence[int]) -> None:
        key, env = _key(checked_id(user_id, "user id")), self._env()
        newest_first = checked_ids(item_ids, "item id")[::-1]
        if not len(newest_first):
            return

        def change(txn: Txn) -> None:
            record = txn.get(key, db=env.db["histories"])
            before = newest_first[:0] if record is None else decode_history(user_id, record)
            after = np.concatenate([newest_first, before])[: self.schema.history_length]
            txn.put(key, encode_history(user_id, after), db=env.db["histories"])

        await self._write(change)

    async def put_histories(self, histories: Mapping[int, Ids]) -> None:
        env, pairs, emptied = self._env(), [], []
        for user_id, newest_first in sorted(histories.items()):
            key = _key(checked_id(user_id, "user id"))
            kept = checked_ids(newest_first, "item id")[: self.schema.history_length]
            if len(kept):
                pairs.append((key, encode_history(user_id, kept)))
            else:
                emptied.append(key)

        def change(txn: Txn) -> None:
            with txn.cursor(env.db["histories"]) as cursor:
                cursor.putmulti(pairs)
            for key in emptied:
                txn.delete(key, db=env.db["histories"])

        await self._write(change)

    async def delete_history(self, user_id: int) -> bool:
        key, env = _key(checked_id(user_id, "user id")), self._env()
        return await self._write(lambda txn: txn.delete(key, db=env.db["histories"]))

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

        await self._write(change)

    async def delete_items(self, item_ids: Ids) -> int:
        keys, env = _keys(checked_ids(item_ids, "item id")), self._env()
        return await self._write(
            lambda txn: sum(txn.delete(key, db=env.db["items"]) for key in keys)
        )

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

    async def ping(self) -> None:
        self._count("items")

    async def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            await asyncio.to_thread(self._writer.shutdown)
            release(environment)

    def _env(self) -> LmdbEnvironment:
        if self._environment is None:
            raise StoreUnavailable("the store is closed")
        return self._environment

    def _count(self, database: str) -> int:
        env = self._env()
        return env.read(lambda txn: txn.stat(env.db[database])["entries"])

    async def _write(self, change: Callable[[Txn], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._env().write, change)

    async def _scan(self, database: str, batch_size: int) -> AsyncIterator[tuple[Ids, list[bytes]]]:
        """Batches of (ids, records) in id order, each of its own snapshot: no reader stays open."""
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


def _keys(ids: Ids) -> list[bytes]:
    packed = ids.astype(">u8").tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


def _recorded_schema(environment: LmdbEnvironment) -> FeatureSchema | None:
    """The schema the store was written with. StoreMismatch for what this program cannot read."""

    def look(txn: Txn) -> tuple[bytes | None, bytes | None]:
        meta = environment.db["meta"]
        return txn.get(b"format", db=meta), txn.get(b"schema", db=meta)

    version, text = environment.read(look)
    if version is None or text is None:
        return None
    if not version.isdigit():
        raise StoreCorrupt(f"{environment.path}: its format record is damaged; load it again")
    if int(version) > STORE_FORMAT:
        raise StoreMismatch(
            f"{environment.path}: written in store format {int(version)}, newer than this program's"
            f" {STORE_FORMAT}; use the release that wrote it"
        )
    return FeatureSchema.from_yaml(text.decode(), source=f"{environment.path} (schema record)")


def _refuse_differences(path: Path, recorded: FeatureSchema | None, schema: FeatureSchema) -> None:
    if recorded is not None and (differences := schema.layout_differences(recorded)):
        raise StoreMismatch(
            f"{path}: written for another schema (ours against the store's): "
            + "; ".join(differences)
        )


def _record(environment: LmdbEnvironment, txn: Txn, schema: FeatureSchema) -> None:
    meta = environment.db["meta"]
    txn.put(b"format", str(STORE_FORMAT).encode(), db=meta)
    txn.put(b"schema", schema.to_yaml().encode(), db=meta)
