"""Texts that a Redis store keeps of items."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from feature_store.contract import Ids
from feature_store.descriptions import Description, decode_description, encode_description
from feature_store.redis.client import RedisClient
from feature_store.redis.layout import Layout
from feature_store.redis.topology import Command


class Descriptions:
    """Texts of one store; ``in_cluster``, of a cluster's."""

    def __init__(self, client: RedisClient, layout: Layout, *, in_cluster: bool) -> None:
        self._client, self._layout, self._in_cluster = client, layout, in_cluster

    async def put(self, descriptions: Mapping[int, Description]) -> None:
        """Replace texts of items; empty ones are removed."""
        commands = [
            Command(("SET", key, encode_description(description)), key)
            if description
            else Command(("DEL", key), key)
            for item, description in descriptions.items()
            for key in (self._layout.description(item),)
        ]
        await self._client.bulk(commands)

    async def delete(self, ids: Ids) -> None:
        """Remove the texts of items."""
        await self.put({item: {} for item in ids.tolist()})

    async def read(self, ids: Ids) -> list[dict[str, str]]:
        """Return the texts of each item. StoreCorrupt."""
        groups = list(self._layout.by_partition(ids)) if self._in_cluster else [np.arange(len(ids))]
        groups = [group for group in groups if len(group)]
        commands = [
            self._layout.read_keys([self._layout.description(i) for i in ids[group].tolist()])
            for group in groups
        ]
        found: list[dict[str, str]] = [{} for _ in ids]
        for group, reply in zip(groups, await self._client.all(commands), strict=True):
            for at, record in zip(group.tolist(), reply, strict=True):
                found[at] = decode_description(int(ids[at]), record)
        return found
