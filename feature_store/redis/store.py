"""The store on Redis: one server, a master under Sentinel, or a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import numpy as np

from feature_store.codec import ItemCodec
from feature_store.contents import Contents, Origin
from feature_store.contract import (
    STALE,
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
from feature_store.errors import (
    StoreError,
    StoreMismatch,
    StoreUnavailable,
)
from feature_store.faults import FaultLog
from feature_store.ids import checked_id, checked_ids
from feature_store.options import StoreOptions
from feature_store.redis.change_reader import ChangeReader
from feature_store.redis.client import RedisClient
from feature_store.redis.descriptions import Descriptions
from feature_store.redis.durability import facts_of_servers
from feature_store.redis.items import ItemRecords
from feature_store.redis.layout import Layout, meta_key
from feature_store.redis.record import ContentRecord, MetadataRecord, Recorded
from feature_store.redis.replies import history_of, parsing_reply
from feature_store.redis.scan import scan_users
from feature_store.redis.server import BULK, REQUESTS
from feature_store.redis.texts import Texts, collision
from feature_store.redis.topology import Command, Reply, Topology
from feature_store.redis.users import UserRecords
from feature_store.schema import FeatureSchema
from feature_store.schema_record import RefreshPace, no_descriptions, settled, settled_ids
from feature_store.text_ids import TextIds, check_texts


class RedisStore:
    """``feature_store.contract.FeatureStore`` on the servers of a URL."""

    def __init__(
        self,
        nodes: Topology,
        schema: FeatureSchema,
        text_ids: TextIds | None,
        layout: Layout,
        options: StoreOptions,
        faults: FaultLog,
        kind: str,
    ) -> None:
        self.schema, self.text_ids = schema, text_ids
        self.made: bytes | None = None
        self._faults = faults
        self._layout, self._options, self._kind = layout, options, kind
        self._client = RedisClient(nodes, options.budget_ms / 1e3, faults)
        self._codec, in_cluster = ItemCodec(schema), kind == "cluster"
        self._items = ItemRecords(
            self._client, layout, self._codec, options.changes_kept, in_cluster=in_cluster
        )
        self._users = UserRecords(self._client, layout, schema, options.history_ttl_s)
        self._refresh = RefreshPace()
        self._changes = ChangeReader(self._client, layout, text_ids, faults)
        self._contents = ContentRecord(self._client, options.prefix)
        self._descriptions = Descriptions(self._client, layout, in_cluster=in_cluster)
        self._texts: Texts | None = None
        if text_ids is not None:
            self._texts = Texts(self._client, layout, in_cluster=in_cluster)

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
        record = MetadataRecord(nodes, options.prefix, place)
        while True:  # until no other process has changed the record meanwhile
            found = await record.read()
            chosen = settled(place, found.parsed(place), schema, create=create)
            count = found.partition_count(place, options.partitions)
            version = None if found.is_missing else found.version
            ids = settled_ids(place, version, found.id_key, options.ids)
            made = found.made_or_new()
            fields = chosen, ids, count, made
            if not create or schema is None or await record.replace(found, *fields):
                break
        store = cls(nodes, chosen, ids, Layout(options.prefix, count), options, faults, kind)
        store.made = made
        if create and schema is not None:
            await store._begin_changes()
        return store

    async def _begin_changes(self) -> None:
        """Write the first entry of the change log, so that it has an end from the start."""
        if not await self._client.one(self._layout.last_change(), BULK):
            await self._client.one(self._layout.tell_changes((), self._options.changes_kept), BULK)

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
        if self._options.wait_replicas:
            replies = await self._replicated(commands)
        else:
            replies = await self._client.each(commands)
        return [_applied(one, reply) for one, reply in zip(appends, replies, strict=True)]

    def _append(self, append: Append) -> Command:
        checked_id(append.user_id, "user id")
        checked_ids(append.item_ids, "item id")
        if append.user_text is not None:
            self._kept_texts()
        options = self._options
        return self._layout.append(
            append, self.schema.history_length, options.history_ttl_s, options.idempotency_ttl_s
        )

    async def _replicated(self, commands: list[Command]) -> list[Reply]:
        """Append, each followed by its own WAIT; one on too few replicas is an error."""
        wanted, wait_ms = self._options.wait_replicas, max(1, int(self._options.budget_ms / 2))
        pairs = [
            pair
            for command in commands
            for pair in (command, Command(("WAIT", wanted, wait_ms), command.key))
        ]
        replies = await self._client.each(pairs, BULK)
        results: list[Reply] = []
        for applied, copies in zip(replies[::2], replies[1::2], strict=True):
            failure = next((r for r in (applied, copies) if isinstance(r, StoreError)), None)
            if failure is None and copies < wanted:
                failure = StoreUnavailable(
                    f"the click is on only {copies} of {wanted} replicas: it may be lost",
                    unknown=True,
                )
            results.append(failure or applied)
        return results

    async def put_histories(
        self, histories: Mapping[int, Ids], texts: Mapping[int, str] | None = None
    ) -> None:
        length, ttl_s, commands = self.schema.history_length, self._options.history_ttl_s, []
        if texts:
            self._kept_texts()
        for user_id, newest_first in histories.items():
            user = checked_id(user_id, "user id")
            kept = checked_ids(newest_first, "item id")[:length].tolist()
            if not kept and self._texts is not None:
                commands.append(self._layout.delete_history_and_text(user))
            else:
                text = texts[user] if texts else None
                commands.append(self._layout.replace_history(user, kept, ttl_s, text))
        for user, reply in zip(histories, await self._client.bulk(commands), strict=True):
            if texts and isinstance(reply, bytes):
                raise collision("user id", user, reply, texts[user])

    async def delete_history(self, user_id: int) -> bool:
        user = checked_id(user_id, "user id")
        key = self._layout.history(user)
        if self._texts is None:
            return bool(await self._client.one(Command(("DEL", key), key)))
        reply = await self._client.one(self._layout.delete_history_and_text(user))
        return bool(reply[-1] if isinstance(reply, list) else reply)

    async def scan_histories(self, batch_size: int = 1024) -> AsyncIterator[dict[int, Ids]]:
        """Scan the whole keyspace of every server in steps: for operators, not for requests."""
        async for users in scan_users(
            self._client, self._layout, self._layout.histories, batch_size
        ):
            length = self.schema.history_length
            replies = await self._client.bulk([self._layout.read_history(u, length) for u in users])
            found = zip(users, replies, strict=True)
            histories = {user: history_of(user, reply) for user, reply in found}
            yield {user: ids for user, ids in histories.items() if ids is not None}

    async def count_histories(self) -> int:
        found = scan_users(self._client, self._layout, self._layout.histories)
        return sum([len(users) async for users in found])

    async def user(self, user_id: int) -> User:
        user = checked_id(user_id, "user id")
        found = await self._users.read(user)
        if found.status == STALE and self._refresh.due():
            await self.refresh_schema()
            found = await self._users.read(user)
        return found

    async def users(self, user_ids: Ids) -> UserBatch:
        return await self._users.read_all(checked_ids(user_ids, "user id"))

    async def put_users(
        self, user_ids: Ids, rows: UserRows, texts: Mapping[int, str] | None = None
    ) -> None:
        ids = checked_ids(user_ids, "user id")
        check_texts(f"redis (prefix {self._options.prefix})", self.text_ids, ids, texts)
        await self._users.put(ids, rows, texts)

    async def patch_user(self, user_id: int, change: Callable[[UserRows], None]) -> bool:
        return await self._users.patch(checked_id(user_id, "user id"), change)

    async def delete_user(self, user_id: int) -> bool:
        user = checked_id(user_id, "user id")
        return await self._users.delete(user, mapped=self.text_ids is not None)

    async def forget_user(self, user_id: int) -> bool:
        return await self._users.forget(checked_id(user_id, "user id"))

    def scan_users(self, batch_size: int = 4096) -> AsyncIterator[UserBatch]:
        return self._users.scan(batch_size)

    async def count_users(self) -> int:
        return await self._users.count()

    async def user_fault(self, user_id: int) -> str | None:
        return await self._users.fault(checked_id(user_id, "user id"))

    async def refresh_schema(self) -> FeatureSchema:
        key, place = meta_key(self._options.prefix), f"redis (prefix {self._options.prefix})"
        reply = await self._client.one(Command(("HMGET", key, "format", "schema"), key))
        with parsing_reply(place, "HMGET"):
            found = Recorded(*reply)
        if (recorded := await asyncio.to_thread(found.parsed, place)) is not None:
            self.schema = settled(place, recorded, self.schema, create=False)
            self._users.adopt(self.schema)
        return self.schema

    async def items(self, item_ids: Ids) -> ItemBatch:
        return await self._items.read(checked_ids(item_ids, "item id"))

    async def put_items(
        self, item_ids: Ids, rows: ItemRows, contents: Contents | None = None
    ) -> None:
        if contents is not None:
            await self._contents.record(contents.feature)
        await self._items.put(checked_ids(item_ids, "item id"), rows, contents)

    async def delete_items(self, item_ids: Ids) -> int:
        ids = np.unique(checked_ids(item_ids, "item id"))
        if self.schema.descriptions:
            await self._descriptions.delete(ids)
        return await self._items.delete(ids)

    async def patch_item(
        self, item_id: int, change: Callable[[ItemRows], None], origin: Origin | None = None
    ) -> bool:
        if origin is not None:
            await self._contents.record(origin.feature)
        return await self._items.patch(item_id, change, origin)

    def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        return self._items.scan(batch_size)

    async def count_items(self) -> int:
        return await self._items.count()

    async def put_descriptions(self, descriptions: Mapping[int, Description]) -> None:
        checked_ids(list(descriptions), "item id")
        if not self.schema.descriptions:
            raise no_descriptions(f"redis (prefix {self._options.prefix})")
        await self._descriptions.put(descriptions)

    async def descriptions(self, item_ids: Ids) -> list[dict[str, str]]:
        ids = checked_ids(item_ids, "item id")
        return await self._descriptions.read(ids) if self.schema.descriptions else [{} for _ in ids]

    async def changes(self, cursor: str | None) -> Changes:
        return await self._changes.since(cursor)

    async def name_items(self, texts: Mapping[int, str]) -> None:
        await self._kept_texts().keep_items(texts)

    def _kept_texts(self) -> Texts:
        if self._texts is None:
            raise StoreMismatch(
                f"redis (prefix {self._options.prefix}): its ids are numeric: texts are not kept"
            )
        return self._texts

    async def item_texts(self, item_ids: Ids) -> list[str | None]:
        ids = checked_ids(item_ids, "item id")
        return [None] * len(ids) if self._texts is None else await self._texts.of_items(ids)

    async def user_texts(self, user_ids: Sequence[int]) -> list[str | None]:
        users = [checked_id(user_id, "user id") for user_id in user_ids]
        return [None] * len(users) if self._texts is None else await self._texts.of_users(users)

    async def fault(self, item_id: int) -> str | None:
        return await self._items.fault(checked_id(item_id, "item id"))

    async def describe(self) -> dict[str, str | int]:
        servers = await facts_of_servers(self._client, self._options.wait_replicas)
        return {
            "backend": f"redis {self._kind}".strip(),
            **servers,
            "prefix": self._options.prefix,
            "partitions": self._layout.partitions,
            "ids": "numeric" if self.text_ids is None else "mapped",
            "item_record_bytes": self._codec.record_bytes,
            **await self._contents.fact(),
        }

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
        await self._items.close()
        await self._client.close()

    @property
    def odd_replies(self) -> int:
        return self._faults.count

    @property
    def open_breakers(self) -> list[str]:
        """Names of the servers whose breaker is open."""
        return self._client.open_breakers


def _applied(append: Append, reply: Reply) -> bool | StoreError:
    """Return whether the clicks were added, or why not."""
    if isinstance(reply, bytes) and append.user_text is not None:
        return collision("user id", append.user_id, reply, append.user_text)
    return reply if isinstance(reply, StoreError) else bool(reply)
