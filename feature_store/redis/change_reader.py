"""Reads the change log of a Redis store."""

from __future__ import annotations

import numpy as np

from feature_store.contract import Changes
from feature_store.errors import StoreMismatch
from feature_store.faults import FaultLog
from feature_store.redis.client import RedisClient
from feature_store.redis.layout import Layout
from feature_store.redis.replies import change_batch, parsing_reply
from feature_store.redis.topology import Command
from feature_store.text_ids import TextIds

CHANGES_PER_ANSWER = 256


class ChangeReader:
    """Reads parts of the log; malformed entries are counted and skipped."""

    def __init__(
        self, client: RedisClient, layout: Layout, text_ids: TextIds | None, faults: FaultLog
    ) -> None:
        self._client, self._layout, self._faults = client, layout, faults
        self._id_key = None if text_ids is None else text_ids.key

    async def since(self, cursor: str | None) -> Changes:
        """Return changes since ``cursor``, as ``FeatureStore.changes``."""
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
        # A cursor that is the end stands before the first entry of a log without any.
        lost = cursor not in (None, end)
        if lost:
            await self._refuse_another_store()
        return Changes(end, np.zeros(0, np.int64), lost=lost)

    async def _refuse_another_store(self) -> None:
        """StoreMismatch if the store was emptied, and loaded with other keys or numbers of ids."""
        layout = self._layout
        fields = ("partitions", "id_key")
        reply = await self._client.one(Command(("HMGET", layout.meta, *fields), layout.meta))
        with parsing_reply("redis", "HMGET"):
            partitions, id_key = reply
        before = str(layout.partitions).encode(), self._id_key
        if partitions is not None and (partitions, id_key) != before:
            other = (
                f"redis ({layout.meta.decode()}): the store was emptied and loaded anew, with "
                "other partitions or numbers of text ids; restart this process"
            )
            self._client.refuse(other)
            raise StoreMismatch(other)
