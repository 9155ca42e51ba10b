"""Reads the change log of a Redis store."""

from __future__ import annotations

import numpy as np

from feature_store.contract import Changes
from feature_store.faults import FaultLog
from feature_store.redis.client import RedisClient
from feature_store.redis.layout import Layout
from feature_store.redis.replies import change_batch, parsing_reply

CHANGES_PER_ANSWER = 256


class ChangeReader:
    """Reads parts of the log; malformed entries are counted and skipped."""

    def __init__(self, client: RedisClient, layout: Layout, faults: FaultLog) -> None:
        self._client, self._layout, self._faults = client, layout, faults

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
        return Changes(end, np.zeros(0, np.int64), lost=cursor not in (None, end))
