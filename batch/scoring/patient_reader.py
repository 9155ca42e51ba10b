"""Reads of a store that is asked again while it does not answer: a batch run has time.

A failure of one record is the service's to handle. Any other ends the run, or users would seem to
be new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

import feature_store
from batch.errors import StoreGone
from feature_store.contract import FeatureStore, Ids, ItemBatch, User
from feature_store.errors import StoreCorrupt, StoreMismatch, StoreRefused
from feature_store.options import StoreOptions
from service.errors import StoreFailure
from service.items.store_client import StoreReader
from service.observability.metrics import Metrics

T = TypeVar("T")
MOST_DELETED = 0.05  # of the items, where a server changed; more is a loss
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


class PatientReader(StoreReader):
    """What the pipeline reads. A damaged history or record is left out and said, as the service
    does it; a store that is away or refuses ends the run, or its users would seem to be new."""

    def __init__(self, store: FeatureStore, metrics: Metrics, patience_s: float) -> None:
        super().__init__(store, metrics)
        self._patience_s = patience_s
        self._servers: object = None
        self._items = 0

    async def begin(self) -> None:
        """Look at the store, to see later what it lost. StoreError."""
        await self._look()

    async def history(self, user_id: int) -> Ids | None:
        return await self._patiently(lambda: super(PatientReader, self).history(user_id))

    async def user(self, user_id: int) -> User:
        return await self._patiently(lambda: super(PatientReader, self).user(user_id))

    async def items(self, item_ids: Ids) -> ItemBatch:
        return await self._patiently(lambda: super(PatientReader, self).items(item_ids))

    async def still_there(self, url: str, options: StoreOptions) -> None:
        """Open the store again. StoreGone if it was emptied or made again since it was opened, or
        a server of it restarted, or another took over, since the last look and items are gone:
        what was read since may be missing."""
        try:
            await self._patiently(lambda: self._asked("open", self._again(url, options)))
        except StoreFailure as error:
            raise _replaced(error) from error

    async def _again(self, url: str, options: StoreOptions) -> None:
        store = await feature_store.connect(url, self.store.schema, options=options)
        await store.close()
        now, before = (
            (each.made, each.text_ids and each.text_ids.key) for each in (store, self.store)
        )
        if now != before:
            raise StoreMismatch("it was loaded again")
        servers, items = self._servers, self._items
        await self._look()
        if servers != self._servers and self._items < (1 - MOST_DELETED) * items:
            raise StoreMismatch(f"a server changed: it has {self._items:,} items, had {items:,}")

    async def _look(self) -> None:
        try:
            self._servers = (await self.store.describe()).get("run_ids")
        except StoreRefused:  # INFO is not permitted
            self._servers = None
        self._items = await self.store.count_items()

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer. StoreGone after so many seconds."""
        since, wait = monotonic(), FIRST_WAIT_S
        while True:
            try:
                return await ask()
            except StoreFailure as error:
                if _is_of_one_record(error.__cause__):
                    raise
                if isinstance(error.__cause__, StoreMismatch):
                    raise _replaced(error) from error
                if monotonic() - since + wait > self._patience_s:
                    raise StoreGone(
                        f"the feature store did not answer for {self._patience_s:g} s: "
                        f"{error.__cause__}; when it does, run the same command again"
                    ) from error
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)


def _is_of_one_record(error: BaseException | None) -> bool:
    return isinstance(error, StoreCorrupt) or (isinstance(error, StoreRefused) and error.of_one_key)


def _replaced(error: StoreFailure) -> StoreGone:
    return StoreGone(
        f"the feature store was emptied or replaced during the run: {error.__cause__}; load it, "
        "then run the same command again"
    )
