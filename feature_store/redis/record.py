"""The metadata record of a Redis store: a hash that is read at the start and compared when set."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import NamedTuple

from feature_store.errors import StoreCorrupt, StoreError
from feature_store.redis import scripts
from feature_store.redis.client import BULK_PATIENCE_S, RedisClient, with_key
from feature_store.redis.connection import Parts
from feature_store.redis.layout import meta_key
from feature_store.redis.replies import id_of, parsing_reply
from feature_store.redis.topology import Command, Reply, Topology
from feature_store.schema import FeatureSchema
from feature_store.schema_record import CONTENTS, check_content, format_of, parse
from feature_store.text_ids import TextIds

MADE_BYTES = 8
MOST_PARTITIONS = 16_384  # as many as a cluster has slots


class Recorded(NamedTuple):
    """The fields as they were read; None where there is no store yet."""

    version: bytes | None
    schema: bytes | None
    partitions: bytes | None = None
    id_key: bytes | None = None
    made: bytes | None = None

    @property
    def is_missing(self) -> bool:
        return self.version is None or self.schema is None

    def parsed(self, place: str) -> FeatureSchema | None:
        """Parse the schema. StoreMismatch for a newer format."""
        if self.version is None or self.schema is None:
            return None
        return parse(place, self.version, self.schema)

    def made_or_new(self) -> bytes | None:
        """The random number of the store; of a store to be made, a new one."""
        return token_hex(MADE_BYTES).encode() if self.is_missing else self.made

    def partition_count(self, place: str, of_new_store: int) -> int:
        count = of_new_store if self.is_missing else id_of(self.partitions)
        if count is None or not 1 <= count <= MOST_PARTITIONS:
            raise StoreCorrupt(f"{place}: its partition count is damaged; load it again")
        return count


class MetadataRecord:
    """The hash of one store, on servers that are connected."""

    def __init__(self, nodes: Topology, prefix: str, place: str) -> None:
        self._nodes, self._key, self._place = nodes, meta_key(prefix), place

    async def read(self) -> Recorded:
        names = ("format", "schema", "partitions", "id_key", "made")
        reply = await self._ask("HMGET", self._key, *names)
        with parsing_reply(self._place, "HMGET"):
            return Recorded(*reply)

    async def replace(
        self,
        before: Recorded,
        schema: FeatureSchema,
        text_ids: TextIds | None,
        partitions: int,
        made: bytes | None,
    ) -> bool:
        """Record this schema; False if the record is no longer the one ``before``.

        Another process may have made the store, or added user features or contents to it.
        """
        version = format_of(schema, text_ids, before.version)
        fields: Parts = ("format", version, "schema", schema.to_yaml())
        fields += ("partitions", partitions)
        if text_ids is not None:
            fields += ("id_key", text_ids.key)
        if made is not None:
            fields += ("made", made)
        expected: Parts = (before.schema or b"", before.version or b"")
        return bool(await self._ask("EVAL", scripts.RECORD, 1, self._key, *expected, *fields))

    async def _ask(self, *parts: bytes | str | int) -> Reply:
        command = Command(parts, self._key)
        deadline = asyncio.get_running_loop().time() + BULK_PATIENCE_S
        [reply] = await self._nodes.call([command], deadline)
        if isinstance(reply, StoreError):
            raise with_key(reply, command)
        return reply


class ContentRecord:
    """Records that a store has contents of texts, and of which feature: once per process."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client, self._key, self._place = client, meta_key(prefix), f"redis (prefix {prefix})"
        self._recorded: bytes | None = None

    async def record(self, feature: str) -> None:
        """Record it before contents are written: earlier releases must refuse the store.

        ContentMismatch if it has contents of another feature.
        """
        if self._recorded != feature.encode():
            parts: Parts = ("EVAL", scripts.RECORD_CONTENT, 1, self._key, feature, CONTENTS)
            reply = await self._client.one(Command(parts, self._key))
            check_content(self._place, bytes(reply), feature)
            self._recorded = feature.encode()

    async def fact(self) -> dict[str, str]:
        """Name the feature of the store's contents, if it has any."""
        feature = await self._client.one(Command(("HGET", self._key, "content"), self._key))
        return {} if feature is None else {"content": bytes(feature).decode(errors="replace")}
