"""Keeps and reads the texts of a Redis store's text ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.contract import Ids
from feature_store.errors import TextCollision
from feature_store.ids import checked_ids
from feature_store.redis.client import RedisClient
from feature_store.redis.layout import Layout
from feature_store.redis.replies import parsing_reply

TEXTS_PER_SCRIPT = 512
SCRIPTS_PER_BATCH = 16


class Texts:
    """Texts of one store; ``in_cluster``, of a cluster's."""

    def __init__(self, client: RedisClient, layout: Layout, *, in_cluster: bool) -> None:
        self._client, self._layout, self._in_cluster = client, layout, in_cluster

    async def keep_items(self, texts: Mapping[int, str]) -> None:
        """Keep items' texts. TextCollision names one that is refused; the others are kept."""
        numbers = checked_ids(list(texts), "item id")
        parts = [
            numbers[group[at : at + TEXTS_PER_SCRIPT]].tolist()
            for group in self._groups(numbers)
            for at in range(0, len(group), TEXTS_PER_SCRIPT)
        ]
        commands = [
            self._layout.keep_item_texts(part, [texts[number] for number in part]) for part in parts
        ]
        if len(texts) <= TEXTS_PER_SCRIPT:  # as many as a request has: within its budget
            replies = await self._client.all(commands)
        else:
            replies = await self._client.bulk(commands, batch=SCRIPTS_PER_BATCH)
        for part, reply in zip(parts, replies, strict=True):
            with parsing_reply("redis", "EVAL"):
                for number, kept in zip(part, reply[-len(part) :], strict=True):
                    if kept not in (None, texts[number].encode()):
                        raise collision("item id", number, kept, texts[number])

    async def of_items(self, ids: Ids) -> list[str | None]:
        """Return the items' texts; None for a number without one."""
        groups = self._groups(ids)
        keys = [[self._layout.item_text(item) for item in ids[group].tolist()] for group in groups]
        found: list[str | None] = [None] * len(ids)
        for group, texts in zip(groups, await self._read(keys), strict=True):
            for at, text in zip(group.tolist(), texts, strict=True):
                found[at] = text
        return found

    async def of_users(self, users: Sequence[int]) -> list[str | None]:
        """Return the users' texts; None for a number without one."""
        keys = [self._layout.user_text(user) for user in users]
        slots = [[key] for key in keys] if self._in_cluster else [keys] if keys else []
        return [text for texts in await self._read(slots) for text in texts]

    async def _read(self, slots: Sequence[Sequence[bytes]]) -> list[list[str | None]]:
        replies = await self._client.all([self._layout.read_keys(keys) for keys in slots])
        with parsing_reply("redis", "MGET"):
            return [
                [
                    None if text is None else text.decode(errors="replace")
                    for _, text in zip(keys, reply, strict=True)
                ]
                for keys, reply in zip(slots, replies, strict=True)
            ]

    def _groups(self, ids: Ids) -> list[np.ndarray[Any, np.dtype[np.intp]]]:
        """Group positions by slot."""
        if self._in_cluster or not len(ids):
            return list(self._layout.by_partition(ids))
        return [np.arange(len(ids))]


def collision(what: str, number: int, kept: bytes, given: str) -> TextCollision:
    return TextCollision(what, number, kept.decode(errors="replace"), given)
