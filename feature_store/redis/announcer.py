"""Writes item changes to a cluster's change log, which is in another slot than the items.

No transaction spans both, so a change is announced before it is written (``soon``) and after
(``ids``). Followers read the items at once on the second announcement. If it is missing (writer
died, log unreachable), they read them some seconds after the first. A failed second announcement
is retried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from feature_store.errors import StoreError
from feature_store.faults import FaultLog, repeat
from feature_store.redis.client import RedisClient
from feature_store.redis.layout import Layout
from feature_store.redis.replies import IDS, SOON

IDS_PER_CHANGE = 512
REPEATED_EVERY_S = 1.0
MOST_PENDING = (
    200_000  # ids; beyond it the oldest are dropped: followers have the first announcement
)


class Announcer:
    """Announces changes until it is closed."""

    def __init__(self, client: RedisClient, layout: Layout, kept: int, faults: FaultLog) -> None:
        self._client, self._layout, self._kept, self._faults = client, layout, kept, faults
        self._pending: deque[list[int]] = deque()
        self._repeating: asyncio.Task[None] | None = None

    async def before(self, item_ids: Sequence[int]) -> None:
        """Announce items about to be written. On StoreError, do not write them."""
        await self._tell(item_ids, SOON)

    async def after(self, item_ids: Sequence[int]) -> None:
        """Announce items that were, or may have been, written; retry in the background."""
        try:
            await self._tell(item_ids, IDS)
        except StoreError as error:
            self._faults.note("change log: an announcement failed and is repeated", error)
            self._pending.append(list(item_ids))
            while sum(map(len, self._pending)) > MOST_PENDING:
                self._pending.popleft()
            if self._repeating is None:
                self._repeating = asyncio.create_task(
                    repeat("change log", self._again, self._faults, REPEATED_EVERY_S)
                )

    async def _again(self) -> None:
        await asyncio.sleep(REPEATED_EVERY_S)
        await self._announce_pending()

    async def _announce_pending(self) -> None:
        while self._pending:
            ids = self._pending[0]
            try:
                await self._tell(ids, IDS)
            except StoreError as error:
                self._faults.note("change log: an announcement failed and is repeated", error)
                return
            with contextlib.suppress(ValueError):
                self._pending.remove(ids)

    async def _tell(self, item_ids: Sequence[int], field: bytes) -> None:
        """Append entries to the log; without ids, one empty entry."""
        starts = range(0, max(1, len(item_ids)), IDS_PER_CHANGE)
        parts = [item_ids[at : at + IDS_PER_CHANGE] for at in starts]
        entries = [self._layout.tell_changes(part, self._kept, field) for part in parts]
        await self._client.bulk(entries)

    async def close(self) -> None:
        """Retry pending announcements once, then drop them."""
        if self._repeating is not None:
            self._repeating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._repeating
            await self._announce_pending()
