"""User records of a Redis store: read with the history in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import numpy as np

from feature_store.codec import UserCodec
from feature_store.contract import CORRUPT, FOUND, MISSING, Ids, User, UserBatch, UserRows
from feature_store.errors import (
    StoreCorrupt,
    StoreError,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
)
from feature_store.redis import scripts
from feature_store.redis.client import RedisClient
from feature_store.redis.connection import Parts
from feature_store.redis.items import PATCH_TRIES, Patching
from feature_store.redis.layout import Layout
from feature_store.redis.replies import history_of, parsing_reply
from feature_store.redis.scan import scan_users
from feature_store.redis.server import BULK, REQUESTS
from feature_store.redis.texts import collision
from feature_store.redis.topology import Command, Reply
from feature_store.schema import FeatureSchema

KEYS_PER_SCRIPT = 1024
FORGET_TRIES = 1024


class UserRecords:
    """User records of one store; ``history_ttl_s`` is the expiry of a text without a record."""

    def __init__(
        self, client: RedisClient, layout: Layout, schema: FeatureSchema, history_ttl_s: int
    ) -> None:
        self._client, self._layout, self._history_ttl_s = client, layout, history_ttl_s
        self._patching = Patching()
        self.adopt(schema)

    def adopt(self, schema: FeatureSchema) -> None:
        """Take the user features of a schema that was read again."""
        self._dtype, self._longest = schema.user_dtype, schema.history_length
        self.codec = UserCodec(schema) if schema.user else None

    async def read(self, user: int) -> User:
        """Read history and record, which are in one slot."""
        commands = [self._layout.read_history(user, self._longest)]
        if self.codec is not None:
            commands.append(self._get(user))
        reply, *records = await self._client.each(commands)
        history: Ids | None = None
        fault: StoreError | None = _of_one_key(reply)
        if fault is None:
            try:
                history = history_of(user, reply)
            except StoreCorrupt as damage:
                fault = damage
        if self.codec is None or _of_one_key(records[0]) is not None:
            status = MISSING if self.codec is None else CORRUPT
            return User(history, np.zeros(1, self._dtype), status, fault)
        return User(history, *self.codec.decode_one(user, *_records(records)), fault)

    async def read_all(self, ids: Ids, lane: int = REQUESTS) -> UserBatch:
        if self.codec is None:
            status = np.full(len(ids), MISSING, np.uint8)
            return UserBatch(ids, np.zeros(len(ids), self._dtype), status)
        commands = [self._get(user) for user in ids.tolist()]
        records = await (
            self._client.bulk(commands) if lane == BULK else self._client.all(commands, lane)
        )
        return self.codec.decode(ids, _records(records))

    async def put(self, ids: Ids, rows: UserRows, texts: Mapping[int, str] | None) -> None:
        records, commands = self._needed_codec().encode(ids, rows), []
        for user, record in zip(ids.tolist(), records, strict=True):
            key = self._layout.user(user)
            parts: Parts = ("SET", key, record)
            if texts:
                keys = (key, self._layout.user_text(user))
                parts = ("EVAL", scripts.PUT_USER_WITH_TEXT, 2, *keys, record, texts[user])
            commands.append(Command(parts, key))
        for user, reply in zip(ids.tolist(), await self._client.bulk(commands), strict=True):
            if texts and isinstance(reply, bytes):
                raise collision("user id", user, reply, texts[user])

    async def patch(self, user: int, change: Callable[[UserRows], None]) -> bool:
        async with self._patching.setdefault(user, asyncio.Lock()):
            return await self._patch(user, change)

    async def _patch(self, user: int, change: Callable[[UserRows], None]) -> bool:
        codec, ids, key = self._needed_codec(), np.array([user]), self._layout.user(user)
        for _ in range(PATCH_TRIES):
            [record] = _records([await self._client.one(self._get(user))])
            if record is None:
                return False
            batch = codec.decode(ids, [record])
            if batch.status[0] != FOUND:
                raise codec.unpatchable(user, record, int(batch.status[0]))
            change(batch.rows)
            after = codec.encode(ids, batch.rows)[0]
            swap: Parts = ("EVAL", scripts.SWAP, 1, key, record, after)
            if await self._client.one(Command(swap, key, again=False)):
                return True
        raise StoreUnavailable(f"user {user}: {PATCH_TRIES} concurrent changes; try again")

    async def delete(self, user: int, *, mapped: bool) -> bool:
        key = self._layout.user(user)
        if not mapped:
            return bool(await self._client.one(Command(("DEL", key), key)))
        text, history = self._layout.user_text(user), self._layout.history(user)
        command = Command(
            ("EVAL", scripts.DELETE_USER_WITH_TEXT, 3, key, text, history),
            key,
            per_key_fallback=lambda: [
                Command(("EXPIRE", text, self._history_ttl_s), text),
                Command(("DEL", key), key),
            ],
        )
        reply = await self._client.one(command)
        return bool(reply[-1] if isinstance(reply, list) else reply)

    async def forget(self, user: int) -> bool:
        """Erase all that the store has of a user, keys that are added meanwhile included."""
        keys, there = self._layout.user_keys(user), False
        for _ in range(FORGET_TRIES):
            listed = Command(("ZRANGE", keys, 0, KEYS_PER_SCRIPT - 1), keys)
            found = await self._client.one(listed)
            with parsing_reply("redis", "ZRANGE"):
                command = self._layout.forget(user, found)
            reply = await self._client.one(command)
            with parsing_reply("redis", "EVAL"):
                record, history, left = map(int, reply[-3:])  # also of the fallback's replies
            there = there or bool(record or history)
            if not left:
                return there
        raise StoreUnavailable(f"user {user}: clicks with keys keep arriving; try again")

    async def scan(self, batch_size: int) -> AsyncIterator[UserBatch]:
        """Yield records, without those deleted meanwhile."""
        found = scan_users(self._client, self._layout, self._layout.users, batch_size)
        async for users in found:
            if users and self.codec is not None:
                batch = await self.read_all(np.array(users, np.int64), BULK)
                there = batch.status != MISSING
                yield UserBatch(batch.ids[there], batch.rows[there], batch.status[there])

    async def count(self) -> int:
        found = scan_users(self._client, self._layout, self._layout.users)
        return sum([len(users) async for users in found])

    async def fault(self, user: int) -> str | None:
        [record] = _records([await self._client.one(self._get(user))])
        return None if record is None or self.codec is None else self.codec.fault(user, record)

    def _get(self, user: int) -> Command:
        key = self._layout.user(user)
        return Command(("GET", key), key)

    def _needed_codec(self) -> UserCodec:
        if self.codec is None:
            raise StoreMismatch(
                "redis: the store's schema has no user features; load it with a schema that has"
                " (load --schema)"
            )
        return self.codec


def _of_one_key(reply: Reply) -> StoreRefused | None:
    """Return an error that concerns its key alone, which has another type. Raises other errors."""
    if isinstance(reply, StoreError):
        if isinstance(reply, StoreRefused) and reply.of_one_key:
            return reply
        raise reply
    return None


def _records(replies: Sequence[Reply]) -> list[bytes | None]:
    """Check the replies of GET."""
    with parsing_reply("redis", "GET"):
        for reply in replies:
            if not isinstance(reply, bytes | None):
                raise TypeError(f"{type(reply).__name__} instead of bytes")
    return list(replies)
