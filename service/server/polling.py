"""Waiting for what tells nobody when it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

EVERY_S = 0.005


async def until(condition: Callable[[], bool]) -> None:
    """Looks every few milliseconds; bounded by whoever awaits it."""
    while not condition():  # noqa: ASYNC110 — no event tells of it
        await asyncio.sleep(EVERY_S)
