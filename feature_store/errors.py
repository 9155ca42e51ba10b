"""The errors of a store: the only ones it raises besides ValueError for invalid ids."""

from __future__ import annotations


class StoreError(Exception):
    """Base of the tree; the message is for an operator and names the remedy."""


class StoreUnavailable(StoreError):
    """No reply: refused, too slow, lost, closed. A retry may succeed.

    ``unknown``: a write had been sent and may have been, or may still be, applied. Otherwise
    nothing was written and nothing will be.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class StoreRefused(StoreError):
    """Rejected by the backend: wrong password, read-only, out of memory, wrong type of key."""

    of_one_key = False  # other keys may be served


class StoreFull(StoreRefused):
    """Out of space: the disk, a quota, the address space or Redis's maxmemory."""


class StoreMismatch(StoreError):
    """The store was written for another schema or a newer format; a retry cannot succeed."""


class ContentMismatch(StoreMismatch):
    """The store or the item has contents of another feature; others may be written."""


class TextCollision(StoreError):
    """Two text ids have one number in this store: the second is refused; a retry cannot succeed."""

    def __init__(self, what: str, number: int, kept: str, given: str) -> None:
        super().__init__(
            f"{what} {given!r} has the number {number}, which is that of {kept!r}: it cannot be in"
            " this store; load into a new one, whose numbers differ"
        )


class StoreCorrupt(StoreError):
    """Stored bytes are damaged. Items are reported one by one in their batch instead."""


class StoreStale(StoreCorrupt):
    """A user record to be patched has features that the schema read earlier lacks."""
