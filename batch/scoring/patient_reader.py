"""Reads of a store that is asked again while it does not answer: a batch run has time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from batch.errors import StoreGone
from feature_store.contract import FeatureStore, Ids, ItemBatch, User
from feature_store.errors import StoreUnavailable
from service.errors import StoreFailure
from service.items.store_client import StoreReader
from service.observability.metrics import Metrics

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


class PatientReader(StoreReader):
    """What the pipeline reads. A damaged history or record is left out and said, as the service
    does it; a store that is away ends the run, or its users would seem to be new."""

    def __init__(self, store: FeatureStore, metrics: Metrics, patience_s: float) -> None:
        super().__init__(store, metrics)
        self._patience_s = patience_s

    async def history(self, user_id: int) -> Ids | None:
        return await self._patiently(lambda: super(PatientReader, self).history(user_id))

    async def user(self, user_id: int) -> User:
        return await self._patiently(lambda: super(PatientReader, self).user(user_id))

    async def items(self, item_ids: Ids) -> ItemBatch:
        return await self._patiently(lambda: super(PatientReader, self).items(item_ids))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer. StoreGone after so many seconds."""
        since, wait = monotonic(), FIRST_WAIT_S
        while True:
            try:
                return await ask()
            except StoreFailure as error:
                if not isinstance(error.__cause__, StoreUnavailable):
                    raise
                if monotonic() - since + wait > self._patience_s:
                    raise StoreGone(
                        f"the feature store did not answer for {self._patience_s:g} s: "
                        f"{error.__cause__}; when it does, run the same command again"
                    ) from error
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
