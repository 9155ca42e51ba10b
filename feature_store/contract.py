"""The contract of every feature store; one test suite runs unchanged against all of them.

Item ids and user ids are the caller's own: non-negative 63-bit integers, not necessarily dense.
An id outside that range raises ValueError; every other failure is a
``feature_store.errors.StoreError``.

A store of text ids keeps the numbers of the texts (``feature_store.text_ids``) and their texts, so
that ids can be given back as they came. Its writes name the text of each new number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.contents import Contents, Mask, Origin, Wanted, choose
from feature_store.descriptions import Description
from feature_store.errors import StoreError
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds

Ids = NDArray[np.int64]
Rows = NDArray[np.void]
ItemRows = Rows  # (N,) of schema.item_dtype
UserRows = Rows  # (N,) of schema.user_dtype

FOUND, MISSING, CORRUPT, STALE = 0, 1, 2, 3
MAX_ID = 2**63 - 1
SYNCED = "on disk before it is answered"  # start of ``acknowledged_click`` in ``describe``


@dataclass(frozen=True, slots=True)
class ItemBatch:
    """Item records in the order requested. Rows that are not FOUND are all zero."""

    ids: Ids  # (N,)
    rows: ItemRows  # (N,)
    status: NDArray[np.uint8]  # (N,) FOUND | MISSING | CORRUPT
    contents: Contents | None = None  # (N,); None: every vector was given

    def choose(self, wanted: Wanted) -> tuple[ItemRows, Mask]:
        """Return the rows with the content that is wanted, and which items lack it (then 0)."""
        return choose(self.rows, self.contents, wanted)

    def take(self, places: NDArray[np.integer] | Mask) -> ItemBatch:
        """Return these items."""
        contents = self.contents
        return ItemBatch(
            self.ids[places],
            self.rows[places],
            self.status[places],
            None if contents is None else contents.take(places),
        )


@dataclass(frozen=True, slots=True)
class UserBatch:
    """User records in the order requested. Rows that are not FOUND are all zero.

    STALE: written with user features that were added to the store since its schema was read.
    """

    ids: Ids  # (N,)
    rows: UserRows  # (N,)
    status: NDArray[np.uint8]  # (N,) FOUND | MISSING | CORRUPT | STALE


@dataclass(frozen=True, slots=True)
class User:
    """What a store has of one user."""

    history: Ids | None  # newest first; None: no clicks
    row: UserRows  # (1,); all zero unless FOUND
    status: int  # of the record: FOUND | MISSING | CORRUPT | STALE
    history_fault: StoreError | None = None  # the history is damaged


@dataclass(frozen=True, slots=True)
class Append:
    """Clicks of one user, oldest first, applied atomically."""

    user_id: int
    item_ids: Sequence[int]
    key: str | None = None  # idempotency key, per user: a repeat is not applied again
    user_text: str | None = None  # store of text ids: the user's; written with the clicks


@dataclass(frozen=True, slots=True)
class Changes:
    """Items that were put or deleted since a cursor, oldest first; an id may occur twice."""

    cursor: str  # for the next call
    ids: Ids
    lost: bool  # older changes are gone: read every item again
    soon: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    """Announced before their write; the writer may die in between: read them again later."""
    unreadable: int = 0  # malformed entries of the log, skipped


class FeatureStore(Protocol):
    """User histories and records, and item records."""

    schema: FeatureSchema
    text_ids: TextIds | None  # None: ids are the caller's numbers
    made: bytes | None  # random, of each store in Redis; None: LMDB, or made by an earlier release

    async def history(self, user_id: int) -> Ids | None:
        """Return the user's item ids, newest first, at most ``history_length``; None if unknown."""

    async def histories(self, user_ids: Sequence[int]) -> list[Ids | None]:
        """The same for several users, in the order requested."""

    async def append(self, user_id: int, item_ids: Sequence[int], key: str | None = None) -> bool:
        """Add clicks, oldest first, and trim. The next ``history`` includes them.

        False if ``key`` was applied before: then nothing is added.
        """

    async def append_all(self, appends: Sequence[Append]) -> list[bool | StoreError]:
        """Apply several appends in order, in one round trip per server.

        The result of a failed append is its error; the others are applied.
        """

    async def put_histories(
        self, histories: Mapping[int, Ids], texts: Mapping[int, str] | None = None
    ) -> None:
        """Replace whole histories, newest first; an empty one deletes the user's.

        ``texts``: the users' text ids, written with their histories.
        """

    async def delete_history(self, user_id: int) -> bool:
        """Delete a user's history, and without a record the text of its id.

        Returns whether there was a history.
        """

    def scan_histories(self, batch_size: int = 1024) -> AsyncIterator[dict[int, Ids]]:
        """Yield every history once, in batches, in any order; a damaged one raises."""

    async def count_histories(self) -> int:
        """Count users with a history (exact for LMDB; elsewhere it may scan the store)."""

    async def user(self, user_id: int) -> User:
        """Return a user's history and record, in one round trip.

        Damage costs what is damaged alone: the history is then ``history_fault``, the record
        CORRUPT. The schema is read again, at most once a second, when the record is STALE.
        """

    async def users(self, user_ids: Ids) -> UserBatch:
        """Return records of these users, in one round trip per server."""

    async def put_users(
        self, user_ids: Ids, rows: UserRows, texts: Mapping[int, str] | None = None
    ) -> None:
        """Insert or replace whole records; the last one of a repeated id counts.

        They do not expire. ``texts``: the users' text ids, all of them, written with the records
        and kept as long. StoreMismatch if the schema has no user features.
        """

    async def patch_user(self, user_id: int, change: Callable[[UserRows], None]) -> bool:
        """Edit the user's row as ``patch_item`` an item's; False if there is no record.

        StoreCorrupt if it is CORRUPT; StoreStale if it is STALE.
        """

    async def delete_user(self, user_id: int) -> bool:
        """Delete a user's record alone; return whether there was one."""

    async def forget_user(self, user_id: int) -> bool:
        """Erase a user: record, history, text id and idempotency keys.

        Returns whether there was a record or a history.
        """

    def scan_users(self, batch_size: int = 4096) -> AsyncIterator[UserBatch]:
        """Yield every user record once, in batches, in any order."""

    async def count_users(self) -> int:
        """Count user records (exact for LMDB; elsewhere it may scan the store)."""

    async def user_fault(self, user_id: int) -> str | None:
        """Describe why a user's record is CORRUPT or STALE; None if it is sound or missing."""

    async def refresh_schema(self) -> FeatureSchema:
        """Read the recorded schema again: a load may have added user features or texts."""

    async def items(self, item_ids: Ids) -> ItemBatch:
        """Return records of these items, in one round trip where the backend can."""

    async def put_items(
        self, item_ids: Ids, rows: ItemRows, contents: Contents | None = None
    ) -> None:
        """Insert or replace whole records; the last one of a repeated id counts.

        ``contents``: origins of the rows' vectors; None: they are given. ContentMismatch if the
        store has contents of another feature.
        """

    async def delete_items(self, item_ids: Ids) -> int:
        """Delete records, and the texts that are kept of them; return how many there were."""

    def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        """Yield every item once, in batches, in any order."""

    async def count_items(self) -> int:
        """Count items (exact for LMDB; may be an estimate elsewhere)."""

    async def patch_item(
        self, item_id: int, change: Callable[[ItemRows], None], origin: Origin | None = None
    ) -> bool:
        """Edit the item's row, a (1,) array, in place with ``change``; False if there is none.

        Optimistic: after another writer's update in between, ``change`` is called again.
        ``origin``: of the vector that ``change`` writes; a vector that it changes without one is
        given. Vectors of other origins are kept, within ``feature_store.contents.ENCODED``.
        ContentMismatch if the store has contents of another feature.
        """

    async def put_descriptions(self, descriptions: Mapping[int, Description]) -> None:
        """Replace the texts that are kept of items, by language; an empty mapping removes them.

        They are in no change log, and in no transaction with the item's record: of two writers of
        one item, one may leave its record and the other its texts, and a writer that ends between
        the two leaves the earlier texts. StoreMismatch if the schema has no ``descriptions``.
        """

    async def descriptions(self, item_ids: Ids) -> list[dict[str, str]]:
        """Return the texts that are kept of items, in one round trip; empty without any.

        StoreCorrupt names the item whose texts are damaged.
        """

    async def changes(self, cursor: str | None) -> Changes:
        """Return item changes since ``cursor``; with None, only the end of the log.

        Returns a long log in parts: call until there are no ids.
        """

    async def name_items(self, texts: Mapping[int, str]) -> None:
        """Keep the text ids of items, before the items are put or clicked on.

        They stay when an item is deleted: histories may name it. TextCollision if one of the
        numbers is another text's: that one is not kept, and others of the call may not be.
        """

    async def item_texts(self, item_ids: Ids) -> list[str | None]:
        """Return the items' text ids, in one round trip; None for a number without one."""

    async def user_texts(self, user_ids: Sequence[int]) -> list[str | None]:
        """Return the users' text ids, in one round trip; None for a number without one."""

    async def fault(self, item_id: int) -> str | None:
        """Describe why an item's record is CORRUPT; None if it is sound or missing."""

    async def describe(self) -> dict[str, str | int]:
        """Return facts about the backend, for operators."""

    async def get_note(self, name: str) -> bytes | None:
        """Return a small named value kept beside the data, such as a load's progress."""

    async def put_note(self, name: str, value: bytes | None) -> None:
        """Set it; None removes it."""

    @property
    def open_breakers(self) -> list[str]:
        """Servers with an open circuit breaker: requests to them fail at once; none in LMDB."""

    @property
    def odd_replies(self) -> int:
        """Unexpected replies and failed runs of background tasks, so far."""

    async def ping(self) -> None:
        """Return if the store answers; raise StoreUnavailable otherwise."""

    async def close(self) -> None: ...
