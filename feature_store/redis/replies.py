"""Parses Redis replies into the store's values; a malformed one is an ``UnexpectedReply``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from feature_store.contract import MAX_ID, Changes, Ids
from feature_store.errors import StoreCorrupt, StoreError, StoreUnavailable
from feature_store.redis.url import Address

MOST_ENTRY_BYTES = 65_536  # of one entry of the change log; an append writes 10 KiB at most
IDS, SOON = b"ids", b"soon"  # fields of an entry: written, about to be written
_MOST_DIGITS = len(str(MAX_ID))
SlotRange = tuple[int, int, Address]  # first, last, the master's address


class UnexpectedReply(StoreUnavailable):
    """A reply of another form than the command's."""


@contextmanager
def parsing_reply(place: str, command: str) -> Iterator[None]:
    """Raise parsing errors inside the block as UnexpectedReply."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UnexpectedReply(
            f"{place}: {command} was answered in an unknown form ({why})"
        ) from error


def history_of(user_id: int, reply: list[bytes]) -> Ids | None:
    """(H,) item ids, newest first; None for an absent list (a user never seen)."""
    if not reply:
        return None
    if not isinstance(reply, list):
        raise UnexpectedReply(f"redis: LRANGE was answered by {type(reply).__name__}")
    try:
        ids = np.array([int(item) for item in reply], np.int64)
    except (ValueError, OverflowError) as error:
        raise StoreCorrupt(
            f"history of user {user_id}: not an item id: {error}; load it again"
        ) from error
    if ids.min() < 0:
        raise StoreCorrupt(f"history of user {user_id}: holds {ids.min()}; load it again")
    return ids


def id_of(text: object) -> int | None:
    """Parse a decimal id; None if ``text`` is not one."""
    if not isinstance(text, bytes) or not text.isdigit() or len(text) > _MOST_DIGITS:
        return None
    number = int(text)
    return number if number <= MAX_ID and (number == 0 or text[:1] != b"0") else None


def address_of(host: bytes | str | None, port: int, asked: Address) -> Address:
    """Parse an address in a reply of the server at ``asked``.

    Without a host (NULL, ``""`` or ``?``: Redis does not know it) the replying server's is meant.
    """
    name = host.decode() if isinstance(host, bytes) else host
    if not isinstance(name, str | None):
        raise TypeError(f"host {name!r}")
    if not 0 < port < 65_536:
        raise ValueError(f"port {port}")
    return (asked[0] if name in (None, "", "?") else str(name)), port


def slots_of(reply: Any, asked: Address) -> tuple[list[SlotRange], list[object]]:
    """Parse a CLUSTER SLOTS reply: its ranges, and the entries that are malformed."""
    if not isinstance(reply, list):
        raise TypeError(f"{type(reply).__name__} instead of a list")
    ranges: list[SlotRange] = []
    odd: list[object] = []
    for entry in reply:
        try:
            first, last, master, *_ = entry
            if not 0 <= first <= last < REDIS_CLUSTER_HASH_SLOTS:
                raise ValueError(f"slots {first} to {last}")
            ranges.append((first, last, address_of(master[0], master[1], asked)))
        except (TypeError, ValueError, AttributeError, LookupError):
            odd.append(entry)
    return ranges, odd


def change_batch(cursor: str, reply: Any) -> tuple[Changes, list[str]] | None:
    """Parse changes after ``cursor``, and name the malformed entries, which are skipped.

    None if there is no entry at the cursor.
    """
    if isinstance(reply, StoreError):
        if "Invalid stream ID" in str(reply):
            return None
        raise reply
    if not reply or reply[0][0].decode() != cursor:
        return None
    ids: dict[bytes, list[int]] = {IDS: [], SOON: []}
    odd: list[str] = []
    for entry, fields in reply[1:]:
        listed = _announced_ids(fields)
        if listed is None:
            odd.append(f"entry {entry.decode()}")
        else:
            ids[fields[0]] += listed
    changes = Changes(
        reply[-1][0].decode(),
        np.array(ids[IDS], np.int64),
        lost=False,
        soon=np.array(ids[SOON], np.int64),
        unreadable=len(odd),
    )
    return changes, odd


def _announced_ids(fields: list[bytes]) -> list[int] | None:
    """Parse the ids of a change-log entry; None if it is malformed."""
    if not isinstance(fields, list) or len(fields) != 2 or fields[0] not in (IDS, SOON):
        return None
    if len(fields[1]) > MOST_ENTRY_BYTES:
        return None
    ids = [id_of(text) for text in fields[1].split()]
    known = [item for item in ids if item is not None]
    return known if len(known) == len(ids) else None


def info_of(reply: bytes) -> dict[str, str]:
    lines = [line.partition(":") for line in reply.decode(errors="replace").splitlines()]
    return {name: value for name, _, value in lines if value}
