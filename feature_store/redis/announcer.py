"""Telling a cluster's change log of items that are in other slots, so not in one transaction.

An item's change is announced before it is written (``soon``) and after (``ids``). Followers look at
once when they see the second. When it is missing, because the writer died or the log could not be
reached, they look some seconds after the first. A second announcement that fails is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from feature_store.errors import StoreError
from feature_store.parquet.oddities import Oddities, repeat
from feature_store.redis.client import RedisCalls
from feature_store.redis.layout import Layout
from feature_store.redis.replies import IDS, SOON

IDS_PER_CHANGE = 512
REPEATED_EVERY_S = 1.0
MOST_UNTOLD = 200_000  # ids; the oldest are left to the followers' own means


class Announcer:
    """Announces changes until it is closed."""

    def __init__(self, ask: RedisCalls, layout: Layout, kept: int, oddities: Oddities) -> None:
        self._ask, self._layout, self._kept, self._oddities = ask, layout, kept, oddities
        self._untold: deque[list[int]] = deque()
        self._repeating: asyncio.Task[None] | None = None

    async def before(self, item_ids: Sequence[int]) -> None:
        """Announce what is about to be written. StoreError: then it should not be."""
        await self._tell(item_ids, SOON)

    async def after(self, item_ids: Sequence[int]) -> None:
        """Announce what was, or may have been, written; repeated in the background if it fails."""
        try:
            await self._tell(item_ids, IDS)
        except StoreError as error:
            self._oddities.note("change log: an announcement failed and is repeated", error)
            self._untold.append(list(item_ids))
            while sum(map(len, self._untold)) > MOST_UNTOLD:
                self._untold.popleft()
            if self._repeating is None:
                self._repeating = asyncio.create_task(
                    repeat("change log", self._again, self._oddities, REPEATED_EVERY_S)
                )

    async def _again(self) -> None:
        await asyncio.sleep(REPEATED_EVERY_S)
        await self._tell_untold()

    async def _tell_untold(self) -> None:
        while self._untold:
            ids = self._untold[0]
            try:
                await self._tell(ids, IDS)
            except StoreError as error:
                self._oddities.note("change log: an announcement failed and is repeated", error)
                return
            with contextlib.suppress(ValueError):
                self._untold.remove(ids)

    async def _tell(self, item_ids: Sequence[int], field: bytes) -> None:
        """An empty entry for no ids at all."""
        starts = range(0, max(1, len(item_ids)), IDS_PER_CHANGE)
        parts = [item_ids[at : at + IDS_PER_CHANGE] for at in starts]
        await self._ask.bulk([self._layout.tell_changes(part, self._kept, field) for part in parts])

    async def close(self) -> None:
        """Try once more what is untold, then give it up."""
        if self._repeating is not None:
            self._repeating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._repeating
            await self._tell_untold()
