"""Finds out whether a store lost data during a command: its server evicted them, or restarted."""

from __future__ import annotations

import time
from collections.abc import Mapping

from feature_store.cli.app import opened
from feature_store.contract import FeatureStore
from feature_store.errors import StoreError, StoreMismatch, StoreRefused

AGAIN = "run the same command again"
SYNCED = "on disk before it is answered"  # of ``acknowledged_click``


class Losses:
    """Looks at a store's server before a command and after it. One that says nothing loses nothing.

    ``command``: load or export.
    """

    def __init__(self, command: str, facts: Mapping[str, str | int]) -> None:
        self._command, self._before, self._began = command, facts, time.monotonic()

    @classmethod
    async def watched(cls, store: FeatureStore, command: str) -> Losses:
        return cls(command, await _facts_of(store))

    async def found(self, url: str, store: FeatureStore) -> list[str]:
        """Return warnings. StoreRefused if the store's data are not all there."""
        facts, seconds = await _facts_of(store), time.monotonic() - self._began
        uptime, synced = facts.get("uptime_seconds"), str(facts.get("acknowledged_click"))
        during = f"during the {self._command}"
        if isinstance(uptime, int) and uptime + 1 < seconds and not synced.startswith(SYNCED):
            raise StoreRefused(f"redis restarted {during}: what it had not saved is lost; {AGAIN}")
        evicted = _number(facts, "evicted_keys") - _number(self._before, "evicted_keys")
        policy = facts.get("maxmemory_policy")
        told = f"redis evicted {evicted:,} keys {during} (maxmemory-policy {policy})"
        if evicted > 0 and not str(policy).startswith("volatile"):
            raise StoreRefused(
                f"{told}: its data may not all be there; raise maxmemory, set the policy "
                f"noeviction, load it, and {AGAIN}"
            )
        try:
            async with opened(url):
                pass
        except StoreMismatch as error:
            raise StoreRefused(f"emptied {during}: {error}; {AGAIN}") from error
        return [f"{told}: histories may not all be there; raise maxmemory"] if evicted > 0 else []


async def _facts_of(store: FeatureStore) -> Mapping[str, str | int]:
    try:
        return await store.describe()
    except StoreError:  # e.g. INFO is not permitted
        return {}


def _number(facts: Mapping[str, str | int], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0
