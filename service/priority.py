"""Who goes first: people who wait (``online``), or jobs that can come again (``batch``)."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from service.errors import InvalidHeader

PRIORITY_HEADER = "X-Priority"


class Priority(Enum):
    # Enum's own hash is Python, and dictionaries by class are looked into all the time.
    __hash__ = object.__hash__

    ONLINE = "online"
    BATCH = "batch"

    @property
    def priority(self) -> Priority:
        return self


class HasPriority(Protocol):
    """A priority, or what has one that may fall while it waits: see ``Permit.defer``."""

    @property
    def priority(self) -> Priority: ...


_KNOWN: dict[bytes | None, Priority] = {p.value.encode(): p for p in Priority}
_KNOWN[None] = Priority.ONLINE


def priority_of(header: bytes | None) -> Priority:
    """The class a request asks for; without a header it is online. InvalidHeader names it."""
    try:
        return _KNOWN[header]
    except KeyError:
        known = " or ".join(priority.value for priority in Priority)
        raise InvalidHeader.of(PRIORITY_HEADER, detail=f"should be {known}") from None
