"""Redis's replies as the store's values."""

from __future__ import annotations

import numpy as np

from feature_store.contract import Changes, Ids
from feature_store.errors import StoreCorrupt, StoreError
from feature_store.redis_nodes import Reply


def history_of(user_id: int, reply: list[bytes]) -> Ids | None:
    """(H,) item ids, newest first; an absent list is a user never seen."""
    if not reply:
        return None
    try:
        ids = np.array([int(item) for item in reply], np.int64)
    except (ValueError, OverflowError) as error:
        raise StoreCorrupt(
            f"history of user {user_id}: holds what is no item id: {error}; load it again"
        ) from error
    if ids.min() < 0:
        raise StoreCorrupt(f"history of user {user_id}: holds {ids.min()}; load it again")
    return ids


def change_batch(cursor: str, reply: Reply) -> Changes | None:
    """Changes after ``cursor``; None when the entry at the cursor is gone, or never was."""
    if isinstance(reply, StoreError):
        if "Invalid stream ID" in str(reply):
            return None
        raise reply
    if not reply or reply[0][0].decode() != cursor:
        return None
    texts = [fields[1] for _, fields in reply[1:]]
    ids = [int(item) for text in texts for item in text.split()]
    return Changes(reply[-1][0].decode(), np.array(ids, np.int64), lost=False)


def info_of(reply: bytes) -> dict[str, str]:
    lines = [line.partition(":") for line in reply.decode().splitlines()]
    return {name: value for name, _, value in lines if value}
