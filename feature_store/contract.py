"""What every feature store promises. One test suite runs unchanged against all of them.

Item ids and user ids are the caller's own: non-negative 63-bit integers, not necessarily dense.
An id outside that range is the caller's mistake and a ValueError; everything else that goes wrong
is a ``feature_store.errors.StoreError``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import StoreError
from feature_store.schema import FeatureSchema

Ids = NDArray[np.int64]
ItemRows = NDArray[np.void]  # (N,) of schema.item_dtype

FOUND, MISSING, CORRUPT = 0, 1, 2
MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ItemBatch:
    """Item records in the order asked. Rows that are not FOUND are all zero."""

    ids: Ids  # (N,)
    rows: ItemRows  # (N,)
    status: NDArray[np.uint8]  # (N,) FOUND | MISSING | CORRUPT


@dataclass(frozen=True, slots=True)
class Append:
    """Clicks of one user, oldest first, applied whole or not at all."""

    user_id: int
    item_ids: Sequence[int]
    key: str | None = None  # idempotency key, of this user alone: a repeat is not applied again


@dataclass(frozen=True, slots=True)
class Changes:
    """Items that were put or deleted since a cursor, oldest first; an id may be there twice."""

    cursor: str  # where the next call goes on
    ids: Ids
    lost: bool  # older changes are gone: read every item again
    soon: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    """About to be written, by a writer that may end before it can tell: worth a look later."""
    unreadable: int = 0  # entries of the log that were no list of ids, and were passed over


class FeatureStore(Protocol):
    """User histories and item records."""

    schema: FeatureSchema

    async def history(self, user_id: int) -> Ids | None:
        """The user's item ids, newest first, at most ``history_length``; None if never seen."""

    async def histories(self, user_ids: Sequence[int]) -> list[Ids | None]:
        """The same for several users, in the order asked."""

    async def append(self, user_id: int, item_ids: Sequence[int], key: str | None = None) -> bool:
        """Add clicks, oldest first, and trim. The very next ``history`` sees them.

        False when ``key`` was already applied: then nothing is added.
        """

    async def append_all(self, appends: Sequence[Append]) -> list[bool | StoreError]:
        """Each as ``append`` would, in the order given and in one round trip per server.

        An append that fails is answered by its error and leaves the others alone.
        """

    async def put_histories(self, histories: Mapping[int, Ids]) -> None:
        """Replace whole histories, newest first; an empty one is a user with no clicks: removed."""

    async def delete_history(self, user_id: int) -> bool:
        """Forget a user; whether there was anything to forget."""

    def scan_histories(self, batch_size: int = 1024) -> AsyncIterator[dict[int, Ids]]:
        """Every history once, in batches, in no promised order; a damaged one raises."""

    async def count_histories(self) -> int:
        """How many users have one (exact for LMDB; elsewhere it may walk the store)."""

    async def items(self, item_ids: Ids) -> ItemBatch:
        """Records of these items, in one round trip where the backend can."""

    async def put_items(self, item_ids: Ids, rows: ItemRows) -> None:
        """Insert or replace whole records; of an id given twice the last one stays."""

    async def delete_items(self, item_ids: Ids) -> int:
        """Remove records; how many there were."""

    def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        """Every item once, in batches, in no promised order."""

    async def count_items(self) -> int:
        """How many items there are (exact for LMDB; may be an estimate elsewhere)."""

    async def patch_item(self, item_id: int, change: Callable[[ItemRows], None]) -> bool:
        """Let ``change`` edit the item's row (a (1,) array) in place; False if there is none.

        No other writer's change in between is lost: ``change`` is then called again.
        """

    async def changes(self, cursor: str | None) -> Changes:
        """Item changes since ``cursor``; None only says where the log now ends.

        At most a part of a long log is answered at once: call until there are no ids.
        """

    async def fault(self, item_id: int) -> str | None:
        """Why an item's record is CORRUPT; None when it is sound or missing."""

    async def describe(self) -> dict[str, str | int]:
        """What an operator wants to know of the backend."""

    async def get_note(self, name: str) -> bytes | None:
        """A small named value kept beside the data, such as how far a load has come."""

    async def put_note(self, name: str, value: bytes | None) -> None:
        """Set it; None removes it."""

    @property
    def open_breakers(self) -> list[str]:
        """Servers known not to answer, so that requests to them fail at once; never any in LMDB."""

    @property
    def odd_replies(self) -> int:
        """Replies of an unknown form, and turns of background work that failed, so far."""

    async def ping(self) -> None:
        """Return if the store answers; raise StoreUnavailable otherwise."""

    async def close(self) -> None: ...
