"""The service's side of the feature store: counted, timed, and failing in the service's terms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from feature_store.contract import Append, Changes, FeatureStore, Ids, ItemBatch, ItemRows
from feature_store.errors import StoreCorrupt, StoreError, StoreFull, StoreRefused, StoreUnavailable
from feature_store.options import StoreOptions
from service.errors import ItemUnreadable, StoreFailure
from service.observability.fast_metrics import Histogram
from service.observability.logs import logger
from service.observability.metrics import Metrics
from service.settings import Settings

T = TypeVar("T")
SAY_EVERY_S = 1.0  # that it still fails
SAY_LESS_EVERY_S, SAY_LESS_AFTER_S = 60.0, 10.0


def store_options(settings: Settings) -> StoreOptions:
    return StoreOptions(
        budget_ms=settings.store_timeout_ms,
        write_budget_ms=settings.store_write_timeout_ms,
        history_ttl_s=settings.history_ttl_s,
        idempotency_ttl_s=settings.idempotency_ttl_s,
        wait_replicas=settings.store_wait_replicas,
    )


class StoreReader:
    """What requests read and write. Every call is one round trip, and never waits long."""

    def __init__(
        self, store: FeatureStore, metrics: Metrics, *, may_do_without: bool = True
    ) -> None:
        """``may_do_without``: requests are answered from what there is while it fails."""
        self.store, self.metrics, self.may_do_without = store, metrics, may_do_without
        self.reachable = True
        self._failing: dict[str, _Failing] = {}  # by operation
        self._seconds: dict[str, Histogram] = {}  # by operation

    def history(self, user_id: int) -> Awaitable[Ids | None]:
        """(H,) item ids, newest first; None for a user never seen."""
        return self._asked("history", self.store.history(user_id))

    async def items(self, item_ids: Ids) -> ItemBatch:
        return await self._asked("items", self.store.items(item_ids))

    async def changes(self, cursor: str | None) -> Changes:
        return await self._asked("changes", self.store.changes(cursor))

    async def append_all(self, appends: Sequence[Append]) -> list[bool | StoreError]:
        """Whether each was new, or why it is not there. StoreFailure if none could be asked."""
        results = await self._asked("append", self.store.append_all(appends))
        for error in results:
            if isinstance(error, StoreError):
                self._failed("append", error)
        return results

    async def put_item(self, item_ids: Ids, rows: ItemRows) -> None:
        await self._asked("put_item", self.store.put_items(item_ids, rows))

    async def patch_item(self, item_id: int, change: Callable[[ItemRows], None]) -> bool:
        return await self._asked("patch_item", self.store.patch_item(item_id, change))

    async def delete_item(self, item_ids: Ids) -> bool:
        return bool(await self._asked("delete_item", self.store.delete_items(item_ids)))

    def failure(self, error: StoreError | None = None) -> StoreFailure:
        return StoreFailure(told_to_callers(error), headers={"Retry-After": "1"})

    async def _asked(self, operation: str, answer: Awaitable[T]) -> T:
        began = perf_counter()
        try:
            answered = await answer
        except StoreError as error:
            self._failed(operation, error)
            if isinstance(error, StoreCorrupt) and operation == "patch_item":
                raise ItemUnreadable("its record is damaged; PUT it whole") from error
            raise self.failure(error) from error
        finally:
            self._took(operation, perf_counter() - began)
        self.reachable = True
        if self._failing and (failing := self._failing.pop(operation, None)) and failing.said_at:
            logger.info("store answers again", operation=operation)
        return answered

    def _took(self, operation: str, seconds: float) -> None:
        series = self._seconds.get(operation)
        if series is None:
            series = self._seconds[operation] = self.metrics.store_seconds.labels(operation)
        series.observe(seconds)

    def _failed(self, operation: str, error: StoreError) -> None:
        """Count it; say so when it begins, and then once a second, after a while once a minute."""
        self.metrics.store_errors.labels(operation, type(error).__name__).inc()
        of_the_log = isinstance(error, StoreRefused) and error.of_one_key
        if isinstance(error, StoreUnavailable) or (operation == "changes" and not of_the_log):
            self.reachable = False  # else it is of one record
        now = perf_counter()
        failing = self._failing.setdefault(operation, _Failing(now))
        failing.unsaid += 1
        every_s = SAY_EVERY_S if now - failing.since < SAY_LESS_AFTER_S else SAY_LESS_EVERY_S
        if now - failing.said_at >= every_s:
            logger.error(
                "store failed", operation=operation, reason=str(error), times=failing.unsaid
            )
            failing.unsaid, failing.said_at = 0, now


@dataclass(slots=True)
class _Failing:
    """An operation that has not succeeded since."""

    since: float
    said_at: float = 0.0
    unsaid: int = 0


def told_to_callers(error: StoreError | None) -> str:
    """What became of a request, without anything internal."""
    if isinstance(error, StoreFull):
        return "the feature store is full: nothing was written"
    if isinstance(error, StoreUnavailable) and error.unknown:
        return (
            "the feature store did not answer in time: what was sent may have been written; "
            "an event with a key can be sent again"
        )
    return "the feature store did not answer; try again"
