"""Finds ids of users that have a history in the store: a few for Try it, more for a load test."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

from feature_store.contract import FeatureStore
from feature_store.errors import StoreError

COUNT = 3
SPARE = 9  # texts of ids that may not fit
BATCH, MOST_BATCHES = 32, 32  # of Redis a batch is a step through its keys
TIMEOUT_S = 0.2


async def some_users(
    store: FeatureStore, count: int = COUNT, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """Return at most ``count`` ids as a request has them.

    Fewer, or none, where the store has none near, may not be scanned or does not answer.
    """
    found = list[int]()
    try:
        async with asyncio.timeout(timeout_s):
            await _search(store, count, found)
            if store.text_ids is None:
                return list(map(str, found[:count]))
            texts = await store.user_texts(found[: count + SPARE])
    except (StoreError, TimeoutError):
        return []
    # The form takes no space at an end, nor a line break.
    fitting = [text for text in texts if text and text == " ".join(text.split())]
    return fitting[:count]


async def _search(store: FeatureStore, count: int, found: list[int]) -> None:
    async with aclosing(cast("Any", store.scan_histories(BATCH))) as scan:
        batches = 0
        async for histories in scan:
            found += histories
            batches += 1
            if len(found) >= count or batches == MOST_BATCHES:
                break
