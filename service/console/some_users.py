"""Finds ids of users for the page Try it: a few that have a history in the store."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

from feature_store.contract import FeatureStore
from feature_store.errors import StoreError

COUNT = 3
BATCH, MOST_BATCHES = 32, 32  # of Redis a batch is a step through its keys
TIMEOUT_S = 0.2


async def some_users(store: FeatureStore) -> list[str]:
    """Return ids as a request has them.

    Empty where the store has none near, may not be scanned or does not answer.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _search(store)
    except (StoreError, TimeoutError):
        return []


async def _search(store: FeatureStore) -> list[str]:
    found, batches = list[int](), 0
    async with aclosing(cast("Any", store.scan_histories(BATCH))) as scan:
        async for histories in scan:
            found += histories
            batches += 1
            if len(found) >= COUNT or batches == MOST_BATCHES:
                break
    if store.text_ids is None:
        return list(map(str, found[:COUNT]))
    texts = await store.user_texts(found[: 4 * COUNT])
    # The form takes no space at an end, nor a line break.
    fitting = [text for text in texts if text and text == " ".join(text.split())]
    return fitting[:COUNT]
