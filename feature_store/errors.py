"""Everything a store may raise, and nothing else may leave one."""

from __future__ import annotations


class StoreError(Exception):
    """Base of the tree; the message is for an operator and names the remedy."""


class StoreUnavailable(StoreError):
    """It does not answer: refused, too slow, lost, closed. Trying again later may help.

    ``unknown``: a write had been sent, so that it may have been applied or may be yet. Without it
    nothing was written, and nothing will be.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class StoreRefused(StoreError):
    """It answers and declines: wrong password, read-only, out of memory, wrong type of key."""

    of_one_key = False  # another may well be served


class StoreFull(StoreRefused):
    """There is no room for more: the disk, a quota, an address space or Redis's maxmemory."""


class StoreMismatch(StoreError):
    """The store was written for another schema or a newer format; trying again cannot help."""


class StoreCorrupt(StoreError):
    """Stored bytes are damaged. Items are reported one by one in their batch instead."""
