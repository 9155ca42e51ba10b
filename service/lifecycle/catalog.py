"""Every version this process knows: what it goes through, and which part it plays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from service.artifacts.local_copies import Copy
from service.artifacts.repository import ModelRepository
from service.errors import Conflict, UnknownVersion
from service.lifecycle.model_entry import ModelEntry, State
from service.lifecycle.shadow import Shadow
from service.models.registry import ALIASES, ModelRegistry
from service.settings import Settings

GONE = (State.ARRIVING, State.AVAILABLE, State.UNLOADED)
NOT_TRIED = (State.ARRIVING, State.AVAILABLE)


class ModelCatalog:
    """Slots by name. On the event loop alone."""

    def __init__(
        self,
        settings: Settings,
        repository: ModelRepository,
        registry: ModelRegistry,
        shadow: Shadow,
    ) -> None:
        self.settings, self.repository = settings, repository
        self.registry, self.shadow = registry, shadow
        self.entries: dict[str, ModelEntry] = {}
        self.previous: Copy | None = None  # also when it is no longer in memory

    def entry(self, name: str) -> ModelEntry:
        return self.entries.setdefault(name, ModelEntry(name))

    def active(self) -> ModelEntry:
        if self.registry.active is None:
            raise Conflict("nothing is active yet")
        return self.entries[self.registry.active.name]

    async def known(self, name: str) -> ModelEntry:
        """By name or alias. UnknownVersion lists what there is."""
        if name in ALIASES:
            name = self.roles()[name] or name
        if name in self.entries and self.entries[name].state not in GONE:
            return self.entries[name]
        found = await asyncio.to_thread(self.repository.versions)
        if name not in found:
            there = sorted({*found, *self.registry.loaded()})
            raise UnknownVersion(
                f"version {name!r}: not in {self.repository.path}; there are: "
                f"{', '.join(there) or 'none'}",
                members={"available": there},
            )
        return self.entry(name)

    async def listing(self) -> list[dict[str, Any]]:
        """Every version there is, newest first."""
        found = await asyncio.to_thread(self.repository.versions)
        for name, one in found.items():
            entry = self.entry(name)
            entry.created = one.created or entry.created
            changed = entry.state is State.FAILED and entry.mark not in (None, one.mark)
            if entry.state in NOT_TRIED or changed:
                state = State.ARRIVING if one.arriving else State.AVAILABLE
                entry.enter(state, reason=one.fault or one.arriving or one.ahead)
        for name in [n for n, s in self.entries.items() if n not in found and s.state in GONE]:
            del self.entries[name]
        newest = sorted(
            self.entries.values(),
            key=lambda s: (s.created.timestamp() if s.created else 0.0, s.name),
            reverse=True,
        )
        return [self.describe(entry) for entry in newest]

    def passed_over(self, reasons: Mapping[str, str]) -> None:
        """Versions that a start could not begin with; what still arrives is not refused."""
        for name, found in self.repository.versions().items():
            if name in reasons and found.whole and not found.ahead:
                self.entry(name).enter(State.FAILED, reason=reasons[name])
                self.entry(name).mark = found.mark

    def describe(self, entry: ModelEntry) -> dict[str, Any]:
        registry, version = self.registry, entry.version
        plays = {
            "previous": self.previous is not None and self.previous.version == entry.name,
            "canary": bool(registry.canary and registry.canary.version is version),
            "shadow": version is not None and self.shadow.version is version,
        }
        return {
            **entry.as_json(),
            "roles": [role for role, played in plays.items() if played],
            "requests_under_way": registry.under_way(version) if version else 0,
            "answers": version.stats.answers if version else 0,
            "items": version.table.count if version else 0,
        }

    def roles(self) -> dict[str, Any]:
        """Who plays which part."""
        active, canary = self.registry.active, self.registry.canary
        return {
            "active": active.name if active else None,
            "previous": self.previous.version if self.previous else None,
            "canary": {"version": canary.version.name, "share": canary.share} if canary else None,
            "shadow": self.shadow.as_json(),
            "policy": self.settings.model_policy,
        }

    def wanted(self) -> dict[str, Any]:
        """What this process serves, for others of its fleet to serve as well."""
        active, roles = self.active(), self.roles()
        shadow = roles["shadow"]
        return {
            "active": {"version": active.name, "digest": active.digest},
            "previous": self.previous.model_dump() if self.previous else None,
            "canary": roles["canary"],
            "shadow": shadow and {name: shadow[name] for name in ("version", "share")},
            "loaded": self.registry.loaded(),
        }
