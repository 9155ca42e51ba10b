"""Finds out whether a command may lack data of a store: its servers evicted them, or changed."""

from __future__ import annotations

import time
from collections.abc import Mapping

from feature_store.cli.app import opened
from feature_store.contract import SYNCED, FeatureStore
from feature_store.errors import StoreError, StoreMismatch, StoreRefused

AGAIN = "run the same command again"


class Losses:
    """Looks at a store's server before a command and after it. One that says nothing loses nothing.

    ``command``: load or export.
    """

    def __init__(self, command: str, facts: Mapping[str, str | int]) -> None:
        self._command, self._before, self._began = command, facts, time.monotonic()

    @classmethod
    async def watched(cls, store: FeatureStore, command: str) -> Losses:
        return cls(command, await _facts_of(store))

    @property
    def servers(self) -> str:
        """Identifies the servers' runs, where there are several: a note that is on one of them says
        nothing of what the others lost since. Else empty."""
        return str(self._before.get("run_ids", "")) if "slots" in self._before else ""

    async def found(self, url: str, store: FeatureStore) -> list[str]:
        """Return warnings. StoreRefused if the store's data, or what was read, are not all there.

        A scan goes on with its cursor on another server, or in another run, and passes over keys:
        the order of a server's keys is its own.
        """
        facts, seconds = await _facts_of(store), time.monotonic() - self._began
        uptime, synced = facts.get("uptime_seconds"), str(facts.get("acknowledged_click"))
        during, reads = f"during the {self._command}", self._command == "export"
        why = "it may lack records" if reads else "what it had not saved is lost"
        # A server's age is by a clock that may be set: of one that tells its run id, this decides.
        same = "run_ids" in facts and facts["run_ids"] == self._before.get("run_ids")
        restarted = isinstance(uptime, int) and uptime + 1 < seconds and not same
        if restarted and (reads or not synced.startswith(SYNCED)):
            raise StoreRefused(f"redis restarted {during}: {why}; {AGAIN}")
        evicted = _number(facts, "evicted_keys") - _number(self._before, "evicted_keys")
        policy = facts.get("maxmemory_policy")
        told = f"redis evicted {evicted:,} keys {during} (maxmemory-policy {policy})"
        if evicted > 0 and not str(policy).startswith("volatile"):
            raise StoreRefused(
                f"{told}: its data may not all be there; raise maxmemory, set the policy "
                f"noeviction, load it, and {AGAIN}"
            )
        try:  # anew: this one may be connected to a master that was replaced
            async with opened(url) as again:
                facts = await _facts_of(again)
        except StoreMismatch as error:
            raise StoreRefused(f"emptied {during}: {error}; {AGAIN}") from error
        if again.made != store.made:
            raise StoreRefused(f"emptied {during}, and loaded by another command; {AGAIN}")
        if self._changed("run_ids", facts) and not restarted:
            why = "it may lack records" if reads else "what had not reached it is lost"
            raise StoreRefused(f"redis: another server took over {during}: {why}; {AGAIN}")
        if reads and self._changed("slots", facts):
            raise StoreRefused(f"redis: slots moved {during}: it may lack records; {AGAIN}")
        return [f"{told}: histories may not all be there; raise maxmemory"] if evicted > 0 else []

    def _changed(self, name: str, facts: Mapping[str, str | int]) -> bool:
        before, now = self._before.get(name), facts.get(name)
        return None not in (before, now) and before != now


async def _facts_of(store: FeatureStore) -> Mapping[str, str | int]:
    try:
        return await store.describe()
    except StoreError:  # e.g. INFO is not permitted
        return {}


def _number(facts: Mapping[str, str | int], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0
