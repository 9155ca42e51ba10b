"""Client of the feature store: counts and times its calls, and translates its errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from feature_store.contents import Contents, Origin
from feature_store.contract import (
    Append,
    Changes,
    FeatureStore,
    Ids,
    ItemBatch,
    ItemRows,
    User,
    UserRows,
)
from feature_store.errors import (
    ContentMismatch,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreStale,
    StoreUnavailable,
    TextCollision,
)
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema
from feature_store.schema_record import RefreshPace
from service.errors import Conflict, ItemUnreadable, StoreFailure, UserUnreadable
from service.observability.fast_metrics import Histogram
from service.observability.logs import logger
from service.observability.metrics import Metrics
from service.settings import Settings

T = TypeVar("T")
STALE = (
    "its record has features that the schema of the store, as last read, lacks; try again in a "
    "second, or PUT it whole"
)
OTHER_CONTENTS = "the store has contents of another item feature than the encoder's"
COLLISION = "two text ids have one number: the second is refused"
WRITES = (
    "append",
    "name_items",
    "put_item",
    "patch_item",
    "put_descriptions",
    "delete_item",
    "put_user",
    "patch_user",
    "delete_user",
)
ONE_RECORD = (StoreCorrupt, TextCollision, ContentMismatch)
LOG_EVERY_S = 1.0  # while it fails
LOG_LATER_EVERY_S, LOG_LATER_AFTER_S = 60.0, 10.0


def store_options(settings: Settings) -> StoreOptions:
    return StoreOptions(
        budget_ms=settings.store_timeout_ms,
        write_budget_ms=settings.store_write_timeout_ms,
        history_ttl_s=settings.history_ttl_s,
        idempotency_ttl_s=settings.idempotency_ttl_s,
        wait_replicas=settings.store_wait_replicas,
    )


class StoreReader:
    """Reads and writes of requests. Each call is one round trip within the store's timeout."""

    def __init__(
        self, store: FeatureStore, metrics: Metrics, *, may_do_without: bool = True
    ) -> None:
        """``may_do_without``: while the store fails, answer from what is in memory."""
        self.store, self.metrics, self.may_do_without = store, metrics, may_do_without
        self.reachable = True
        self._failing: dict[str, _Failing] = {}  # by operation
        self._seconds: dict[str, Histogram] = {}  # by operation
        self._refresh = RefreshPace()
        for operation in WRITES:  # a series that appears shows no increase
            metrics.store_errors.labels(operation, StoreFull.__name__)

    def history(self, user_id: int) -> Awaitable[Ids | None]:
        """(H,) item ids, newest first; None for a user never seen."""
        return self._asked("history", self.store.history(user_id))

    async def user(self, user_id: int) -> User:
        """A user's history and record. A damaged history is counted and logged as a failure."""
        return await self._asked("user", self.store.user(user_id), _damage)

    async def user_schema(self) -> FeatureSchema:
        """The store's schema, read again at most once a second: a load may have added user
        features. As it was while the store fails."""
        if self._refresh.due():
            with suppress(StoreFailure):
                return await self._asked("schema", self.store.refresh_schema())
        return self.store.schema

    async def items(self, item_ids: Ids) -> ItemBatch:
        return await self._asked("items", self.store.items(item_ids))

    async def changes(self, cursor: str | None) -> Changes:
        return await self._asked("changes", self.store.changes(cursor))

    async def append_all(self, appends: Sequence[Append]) -> list[bool | StoreError]:
        """Append; for each, whether it was new, or its error. StoreFailure if all failed."""
        return await self._asked("append", self.store.append_all(appends), _refusals)

    async def item_texts(self, item_ids: Ids) -> list[str | None]:
        """Text ids of items; None for a number without one."""
        return await self._asked("item_texts", self.store.item_texts(item_ids))

    async def name_items(self, texts: Mapping[int, str]) -> None:
        """Keep the text ids of items. TextCollision."""
        await self._asked("name_items", self.store.name_items(texts))

    async def put_item(
        self, item_ids: Ids, rows: ItemRows, contents: Contents | None = None
    ) -> None:
        """Put whole items, with the origins of their contents. Conflict: see ``_asked``."""
        await self._asked("put_item", self.store.put_items(item_ids, rows, contents))

    async def patch_item(
        self, item_id: int, change: Callable[[ItemRows], None], origin: Origin | None = None
    ) -> bool:
        """Change an item; ``origin``: of the content that ``change`` writes."""
        return await self._asked("patch_item", self.store.patch_item(item_id, change, origin))

    async def put_descriptions(self, item_id: int, texts: Mapping[str, str]) -> None:
        """Keep an item's texts by language, where the store's schema says so."""
        if self.store.schema.descriptions:
            put = self.store.put_descriptions({item_id: texts})
            await self._asked("put_descriptions", put)

    async def delete_item(self, item_ids: Ids) -> bool:
        return bool(await self._asked("delete_item", self.store.delete_items(item_ids)))

    async def put_user(
        self, user_ids: Ids, rows: UserRows, texts: Mapping[int, str] | None
    ) -> None:
        """Put records with the users' text ids, if they have such. TextCollision."""
        await self._asked("put_user", self.store.put_users(user_ids, rows, texts))

    async def patch_user(self, user_id: int, change: Callable[[UserRows], None]) -> bool:
        return await self._asked("patch_user", self.store.patch_user(user_id, change))

    async def delete_user(self, user_id: int) -> bool:
        return await self._asked("delete_user", self.store.delete_user(user_id))

    def failure(self, error: StoreError | None = None) -> StoreFailure:
        return StoreFailure(describe(error), headers={"Retry-After": "1"})

    async def _asked(
        self,
        operation: str,
        answer: Awaitable[T],
        failures: Callable[[T], Sequence[StoreError]] = lambda _: (),
    ) -> T:
        """``failures``: those of parts of the answer; they are counted and logged."""
        began = perf_counter()
        try:
            answered = await answer
        except StoreError as error:
            self._failed(operation, error)
            if isinstance(error, TextCollision):
                raise
            if isinstance(error, ContentMismatch):
                raise Conflict(OTHER_CONTENTS) from error
            if isinstance(error, StoreCorrupt) and operation == "patch_item":
                raise ItemUnreadable("its record is damaged; PUT it whole") from error
            if isinstance(error, StoreStale):
                raise UserUnreadable(STALE) from error
            if isinstance(error, StoreCorrupt) and operation == "patch_user":
                raise UserUnreadable("its record is damaged; PUT it whole") from error
            raise self.failure(error) from error
        finally:
            self._took(operation, perf_counter() - began)
        self.reachable = True
        if failed := failures(answered):
            for part in failed:
                self._failed(operation, part)
        elif (failing := self._failing.pop(operation, None)) and failing.logged_at:
            logger.info("store answers again", operation=operation)
        return answered

    def _took(self, operation: str, seconds: float) -> None:
        series = self._seconds.get(operation)
        if series is None:
            series = self._seconds[operation] = self.metrics.store_seconds.labels(operation)
        series.observe(seconds)

    def _failed(self, operation: str, error: StoreError) -> None:
        """Count a failure. Log the first, then one a second, and after a while one a minute.

        Of one record, an answer about another is no recovery: they have a pace of their own.
        """
        self.metrics.store_errors.labels(operation, type(error).__name__).inc()
        of_one_key = isinstance(error, StoreRefused) and error.of_one_key
        if isinstance(error, StoreUnavailable) or (operation == "changes" and not of_one_key):
            self.reachable = False  # else it is of one record
        now = perf_counter()
        of_one_record = isinstance(error, ONE_RECORD) or (of_one_key and operation != "changes")
        paced = f"{operation} of one record" if of_one_record else operation
        failing = self._failing.setdefault(paced, _Failing(now))
        failing.unlogged += 1
        every_s = LOG_EVERY_S if now - failing.since < LOG_LATER_AFTER_S else LOG_LATER_EVERY_S
        if now - failing.logged_at >= every_s:
            # Of a collision the message has text ids: a user's is not for the log.
            reason = COLLISION if isinstance(error, TextCollision) else str(error)
            logger.error("store failed", operation=operation, reason=reason, times=failing.unlogged)
            failing.unlogged, failing.logged_at = 0, now


@dataclass(slots=True)
class _Failing:
    """An operation that has failed since ``since`` without a success, if not of one record."""

    since: float
    logged_at: float = 0.0
    unlogged: int = 0


def _refusals(results: Iterable[bool | StoreError]) -> Sequence[StoreError]:
    return [result for result in results if isinstance(result, StoreError)]


def _damage(user: User) -> Sequence[StoreError]:
    return () if user.history_fault is None else (user.history_fault,)


def describe(error: StoreError | None) -> str:
    """Describe a failure to the caller, without internals."""
    if isinstance(error, StoreFull):
        return "the feature store is full: nothing was written"
    if isinstance(error, StoreUnavailable) and error.unknown:
        return (
            "the feature store did not answer in time: what was sent may have been written; "
            "an event with a key can be sent again"
        )
    return "the feature store did not answer; try again"
