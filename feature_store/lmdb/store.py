"""The embedded store: histories and items in an LMDB folder that several processes may share.

Reads are memory look-ups and run inline in the event loop. Writes go through one thread with a
bounded queue (``feature_store.lmdb.writer``): neither an fsync nor another process's lock delays a
request beyond its budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from feature_store.codec import decode_history
from feature_store.contents import Contents, Origin
from feature_store.contract import (
    STALE,
    SYNCED,
    Append,
    Changes,
    Ids,
    ItemBatch,
    ItemRows,
    User,
    UserBatch,
    UserRows,
)
from feature_store.descriptions import Description
from feature_store.errors import StoreError, StoreUnavailable
from feature_store.faults import FaultLog
from feature_store.ids import checked_id, checked_ids
from feature_store.lmdb.change_log import ChangeLog, SeenKeys
from feature_store.lmdb.descriptions import Descriptions
from feature_store.lmdb.environment import (
    DESCRIPTIONS,
    USERS,
    LmdbEnvironment,
    Txn,
    acquire,
    release,
)
from feature_store.lmdb.histories import Histories
from feature_store.lmdb.items import ItemRecords
from feature_store.lmdb.names import ITEM, USER, Names
from feature_store.lmdb.records import key_of, scan
from feature_store.lmdb.users import UserRecords
from feature_store.lmdb.writer import LmdbWriter
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema
from feature_store.schema_record import RefreshPace, format_of, parse, settled, settled_ids
from feature_store.text_ids import TextIds, check_texts

T = TypeVar("T")
RECORD = (b"format", b"schema", b"id_key")


class LmdbStore:
    """``feature_store.contract.FeatureStore`` in one folder."""

    def __init__(
        self,
        environment: LmdbEnvironment,
        schema: FeatureSchema,
        text_ids: TextIds | None,
        options: StoreOptions,
        recorded: list[bytes | None],
    ) -> None:
        """``recorded``: as ``_read_record`` read it."""
        self._recorded = recorded
        self.schema, self.text_ids = schema, text_ids
        self.made: bytes | None = None  # a file that was replaced is noticed by its number
        self._environment: LmdbEnvironment | None = environment
        self._faults = FaultLog()
        self._changes = ChangeLog(environment, options.changes_kept, self._faults)
        self._items = ItemRecords(environment, self._changes, schema)
        self._seen = SeenKeys(environment, options.idempotency_ttl_s)
        self._names = Names(environment, mapped=text_ids is not None)
        self._users = UserRecords(environment, self._names, schema)
        self._descriptions = Descriptions(environment)
        self._histories = Histories(environment, self._names, self._users, self._seen)
        self._refresh = RefreshPace()
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
            place, found = str(environment.path), _read_record(environment)
            version, text, key = found
            recorded = None if version is None or text is None else parse(place, version, text)
            chosen = settled(place, recorded, schema, create=create)
            _open_kept(environment, chosen, create=create_now)
            ids = settled_ids(place, version, key, options.ids)
            return cls(environment, chosen, ids, options, found)
        except BaseException:
            release(environment)
            raise

    async def record_schema(self) -> bool:
        """Record the format, schema and kind of ids in the store; False if another process has
        changed the record meanwhile."""
        return await self._write(self._record_schema)

    def _record_schema(self, txn: Txn) -> bool:
        meta = self._env().db["meta"]
        if [txn.get(name, db=meta) for name in RECORD] != self._recorded:
            return False
        version = format_of(self.schema, self.text_ids, self._recorded[0])
        txn.put(b"format", str(version).encode(), db=meta)
        txn.put(b"schema", self.schema.to_yaml().encode(), db=meta)
        if self.text_ids is not None:
            txn.put(b"id_key", self.text_ids.key, db=meta)
        self._changes.begin(txn)
        return True

    async def history(self, user_id: int) -> Ids | None:
        user, env = checked_id(user_id, "user id"), self._env()
        record = env.get(key_of(user), env.db["histories"])
        if record is None:
            return None
        return decode_history(user, record)[: self.schema.history_length]

    async def histories(self, user_ids: Sequence[int]) -> list[Ids | None]:
        users = [checked_id(user_id, "user id") for user_id in user_ids]
        env = self._env()
        db = env.db["histories"]
        records = env.read(lambda txn: [txn.get(key_of(user), db=db) for user in users])
        longest = self.schema.history_length
        return [
            None if record is None else decode_history(user, record)[:longest]
            for user, record in zip(users, records, strict=True)
        ]

    async def append(self, user_id: int, item_ids: Sequence[int], key: str | None = None) -> bool:
        return await self._write(self._appending(Append(user_id, item_ids, key)))

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
        self._env()
        return self._histories.appending(append, self.schema.history_length)

    async def put_histories(
        self, histories: Mapping[int, Ids], texts: Mapping[int, str] | None = None
    ) -> None:
        self._env()
        length = self.schema.history_length
        await self._write(self._histories.replacing(histories, texts, length))

    async def delete_history(self, user_id: int) -> bool:
        user = checked_id(user_id, "user id")
        return await self._write(lambda txn: self._users.delete_history(txn, user))

    async def scan_histories(self, batch_size: int = 1024) -> AsyncIterator[dict[int, Ids]]:
        async for ids, records in scan(self._env, "histories", batch_size):
            users = ids.tolist()
            yield {u: decode_history(u, r) for u, r in zip(users, records, strict=True)}

    async def count_histories(self) -> int:
        return self._count("histories")

    async def user(self, user_id: int) -> User:
        user = checked_id(user_id, "user id")
        self._env()
        found = self._users.read(user)
        if found.status == STALE and self._refresh.due():
            await self.refresh_schema()
            found = self._users.read(user)
        return found

    async def users(self, user_ids: Ids) -> UserBatch:
        self._env()
        return self._users.read_all(checked_ids(user_ids, "user id"))

    async def put_users(
        self, user_ids: Ids, rows: UserRows, texts: Mapping[int, str] | None = None
    ) -> None:
        ids = checked_ids(user_ids, "user id")
        check_texts(str(self._env().path), self.text_ids, ids, texts)
        await self._write(self._users.putting(ids, rows, texts))

    async def patch_user(self, user_id: int, change: Callable[[UserRows], None]) -> bool:
        return await self._write(self._users.patching(checked_id(user_id, "user id"), change))

    async def delete_user(self, user_id: int) -> bool:
        user = checked_id(user_id, "user id")
        return await self._write(lambda txn: self._users.delete(txn, user))

    async def forget_user(self, user_id: int) -> bool:
        user = checked_id(user_id, "user id")
        return await self._write(lambda txn: self._users.forget(txn, user, self._seen))

    async def scan_users(self, batch_size: int = 4096) -> AsyncIterator[UserBatch]:
        codec = self._users.codec
        if codec is not None and USERS in self._env().db:
            async for ids, records in scan(self._env, USERS, batch_size):
                yield await asyncio.to_thread(codec.decode, ids, records)

    async def count_users(self) -> int:
        return self._count(USERS) if USERS in self._env().db else 0

    async def user_fault(self, user_id: int) -> str | None:
        self._env()
        return self._users.fault(checked_id(user_id, "user id"))

    async def refresh_schema(self) -> FeatureSchema:
        place, [version, text, _] = str(self._env().path), _read_record(self._env())
        if version is not None and text is not None:
            recorded = await asyncio.to_thread(parse, place, version, text)
            await asyncio.to_thread(_open_kept, self._env(), recorded, create=False)
            self.schema = settled(place, recorded, self.schema, create=False)
            self._users.adopt(self.schema)
        return self.schema

    async def items(self, item_ids: Ids) -> ItemBatch:
        ids = checked_ids(item_ids, "item id")
        self._env()
        return self._items.read(ids)

    async def put_items(
        self, item_ids: Ids, rows: ItemRows, contents: Contents | None = None
    ) -> None:
        await self._write(self._items.putting(checked_ids(item_ids, "item id"), rows, contents))

    async def delete_items(self, item_ids: Ids) -> int:
        ids = checked_ids(item_ids, "item id")
        delete = self._items.deleting(ids)

        def change(txn: Txn) -> int:
            self._descriptions.delete(txn, ids)
            return delete(txn)

        return await self._write(change)

    async def patch_item(
        self, item_id: int, change: Callable[[ItemRows], None], origin: Origin | None = None
    ) -> bool:
        ids = checked_ids([item_id], "item id")
        return await self._write(self._items.patching(ids, change, origin))

    async def put_descriptions(self, descriptions: Mapping[int, Description]) -> None:
        checked_ids(list(descriptions), "item id")
        self._env()
        await self._write(self._descriptions.putting(descriptions))

    async def descriptions(self, item_ids: Ids) -> list[dict[str, str]]:
        self._env()
        return self._descriptions.read(checked_ids(item_ids, "item id"))

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
        self._env()
        return self._items.fault(checked_ids([item_id], "item id"))

    async def describe(self) -> dict[str, str | int]:
        env = self._env()
        return {
            "backend": "lmdb",
            "path": str(env.path),
            "bytes_on_disk": env.bytes_on_disk(),
            "acknowledged_click": (
                f"{SYNCED} (fsync)"
                if env.syncs
                else "on disk when the kernel flushes it: a power cut loses the rest"
            ),
            "ids": "numeric" if self.text_ids is None else "mapped",
            "item_record_bytes": self._items.codec.record_bytes,
            **self._items.content_fact(),
        }

    async def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        async for ids, records in scan(self._env, "items", batch_size):
            yield await asyncio.to_thread(self._items.codec.decode, ids, records)

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


def _open_kept(environment: LmdbEnvironment, schema: FeatureSchema, *, create: bool) -> None:
    """Open the databases of what a store with this schema keeps, unless they are open."""
    for name, is_kept in ((USERS, schema.user), (DESCRIPTIONS, schema.descriptions)):
        if is_kept and name not in environment.db:
            environment.open_later(name, create=create)


def _read_record(environment: LmdbEnvironment) -> list[bytes | None]:
    """The recorded format, schema and key of text ids."""
    meta = environment.db["meta"]
    return environment.read(lambda txn: [txn.get(name, db=meta) for name in RECORD])
