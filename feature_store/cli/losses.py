"""Finds out whether a store has lost what a load wrote to it: its server evicted or restarted."""

from __future__ import annotations

import time
from collections.abc import Mapping

from feature_store.cli.app import opened
from feature_store.contract import FeatureStore
from feature_store.errors import StoreError, StoreMismatch, StoreRefused

AGAIN = "what it had not saved is lost; run the same command again"
SYNCED = "on disk before it is answered"  # of ``acknowledged_click``


class Losses:
    """Looks at a store's server before a load and after it. One that says nothing loses nothing."""

    def __init__(self, facts: Mapping[str, str | int]) -> None:
        self._before, self._began = facts, time.monotonic()

    @classmethod
    async def watched(cls, store: FeatureStore) -> Losses:
        return cls(await _facts_of(store))

    async def found(self, url: str, store: FeatureStore) -> list[str]:
        """Return warnings. StoreRefused if what was loaded is not all there."""
        facts, seconds = await _facts_of(store), time.monotonic() - self._began
        uptime, synced = facts.get("uptime_seconds"), str(facts.get("acknowledged_click"))
        if isinstance(uptime, int) and uptime + 1 < seconds and not synced.startswith(SYNCED):
            raise StoreRefused(f"redis restarted during the load: {AGAIN}")
        evicted = _number(facts, "evicted_keys") - _number(self._before, "evicted_keys")
        policy = facts.get("maxmemory_policy")
        told = f"redis evicted {evicted:,} keys during the load (maxmemory-policy {policy})"
        if evicted > 0 and not str(policy).startswith("volatile"):
            raise StoreRefused(
                f"{told}: what was loaded is not all there; raise maxmemory, set the policy "
                "noeviction, and run the same command again"
            )
        try:
            async with opened(url):
                pass
        except StoreMismatch as error:
            raise StoreRefused(
                f"emptied during the load: {error}; run the same command again"
            ) from error
        return [f"{told}: histories are not all there; raise maxmemory"] if evicted > 0 else []


async def _facts_of(store: FeatureStore) -> Mapping[str, str | int]:
    try:
        return await store.describe()
    except StoreError:  # e.g. INFO is not permitted
        return {}


def _number(facts: Mapping[str, str | int], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0
