"""The service's side of the feature store: counted, timed, and failing in the service's terms."""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

from feature_store.contract import FeatureStore, Ids, ItemBatch
from feature_store.errors import StoreError
from service.errors import StoreFailure
from service.logs import logger
from service.metrics import Metrics

T = TypeVar("T")


class StoreReader:
    """What scoring reads. Every call is one round trip."""

    def __init__(self, store: FeatureStore, metrics: Metrics) -> None:
        self.store, self.metrics = store, metrics

    async def history(self, user_id: int) -> Ids | None:
        """(H,) item ids, newest first; None for a user never seen."""
        return await self._asked("history", self.store.history(user_id))

    async def items(self, item_ids: Ids) -> ItemBatch:
        return await self._asked("items", self.store.items(item_ids))

    async def _asked(self, operation: str, answer: Awaitable[T]) -> T:
        began = perf_counter()
        try:
            return await answer
        except StoreError as error:
            self.metrics.store_errors.labels(operation, type(error).__name__).inc()
            logger.error("store failed", operation=operation, reason=str(error))
            raise StoreFailure(
                "the feature store did not answer; try again", headers={"Retry-After": "1"}
            ) from error
        finally:
            self.metrics.store_seconds.labels(operation).observe(perf_counter() - began)
