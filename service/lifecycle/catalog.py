"""Lists every version this process knows: its state, and its role."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from service.artifacts.persisted_state import Copy
from service.artifacts.repository import ModelRepository
from service.errors import Conflict, UnknownVersion
from service.lifecycle.shadow import Shadow
from service.models.loaded_model import LoadedModel
from service.models.registry import ALIASES, ModelRegistry
from service.settings import Settings


class State(StrEnum):
    """In the order a version passes them; FAILED may follow any that comes before READY."""

    ARRIVING = "arriving"  # in the models folder, but incomplete: see ``reason``
    AVAILABLE = "available"  # in the models folder
    LOADING = "loading"  # files copied and checked, verified in a child, graphs and items read
    WARMING = "warming"
    VERIFYING = "verifying"  # the golden answers once more, in this process
    READY = "ready"  # in memory: answers requests that name it
    ACTIVE = "active"
    DRAINING = "draining"  # finishes the requests it has begun and is then freed
    UNLOADED = "unloaded"
    FAILED = "failed"  # see ``reason``


IN_MEMORY = frozenset({State.READY, State.ACTIVE, State.DRAINING})
UNDER_WAY = frozenset({State.LOADING, State.WARMING, State.VERIFYING})
NOT_TRIED = (State.ARRIVING, State.AVAILABLE)
GONE = (*NOT_TRIED, State.UNLOADED, State.FAILED)  # listed only with a folder
SHOWN = ["reason", "step", "digest", "signer", "created", "since", "load_seconds", "worst_stall_ms"]


@dataclass(slots=True)
class ModelEntry:
    """One version as this process knows it."""

    name: str
    state: State = State.AVAILABLE
    reason: str | None = None  # of a failure or rollback, and the remedy
    step: str | None = None  # of a load, for display
    digest: str | None = None  # sha-256 of the manifest, once imported
    signer: str | None = None  # fingerprint of the signing key
    created: datetime | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))  # of the state
    load_seconds: float | None = None
    worst_stall_ms: float | None = None  # of the event loop, during the load
    version: LoadedModel | None = None
    mark: str | None = None  # of its folder when a load began (see ``FoundBundle``)

    def enter(self, state: State, step: str | None = None, reason: str | None = None) -> None:
        if state is not self.state:
            self.since = datetime.now(UTC)
        self.state, self.step, self.reason = state, step, reason

    def as_json(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in SHOWN}
        return {"version": self.name, "state": self.state.value, **shown}


def content_of(version: LoadedModel) -> dict[str, Any]:
    """Describe the content that a version wants and how many items have it; nothing for others."""
    wanted = version.model.wanted
    if wanted is None:
        return {}
    having = version.table.count - version.table.lacking
    feature, digest = wanted.origin.feature, wanted.origin.digest
    return {"content": {"feature": feature, "digest": digest, "items": having}}


class ModelCatalog:
    """Entries by name. Used on the event loop only."""

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
        self.previous: Copy | None = None  # also after it was unloaded

    def entry(self, name: str) -> ModelEntry:
        return self.entries.setdefault(name, ModelEntry(name))

    def active(self) -> ModelEntry:
        if self.registry.active is None:
            raise Conflict("no version is active yet")
        return self.entries[self.registry.active.name]

    async def known(self, name: str) -> ModelEntry:
        """Find an entry by name or alias. UnknownVersion lists the available ones."""
        if name in ALIASES:
            name = self.roles()[name] or name
        if name in self.entries and self.entries[name].state not in GONE:
            return self.entries[name]
        found = await asyncio.to_thread(self.repository.versions)
        if name not in found:
            available = sorted({*found, *self.registry.loaded()})
            raise UnknownVersion(
                f"version {name!r}: not in {self.repository.path}; available: "
                f"{', '.join(available) or 'none'}",
                members={"available": available},
            )
        return self.entry(name)

    async def listing(self) -> list[dict[str, Any]]:
        """Describe every version in memory or in the models folder, newest first."""
        found = await asyncio.to_thread(self.repository.versions)
        for name, one in found.items():
            entry = self.entry(name)
            entry.created = one.created or entry.created
            changed = entry.state is State.FAILED and entry.mark not in (None, one.mark)
            if entry.state in NOT_TRIED or changed:
                state = State.ARRIVING if one.arriving else State.AVAILABLE
                entry.enter(state, reason=one.fault or one.arriving or one.ahead)
        for name in [n for n, e in self.entries.items() if n not in found and e.state in GONE]:
            del self.entries[name]
        newest = sorted(
            self.entries.values(),
            key=lambda e: (e.created.timestamp() if e.created else 0.0, e.name),
            reverse=True,
        )
        return [self.describe(entry) for entry in newest]

    def passed_over(self, reasons: Mapping[str, str]) -> None:
        """Mark complete bundles that a start could not use as failed."""
        for name, found in self.repository.versions().items():
            if name in reasons and found.whole and not found.ahead:
                self.entry(name).enter(State.FAILED, reason=reasons[name])
                self.entry(name).mark = found.mark

    def describe(self, entry: ModelEntry) -> dict[str, Any]:
        registry, version = self.registry, entry.version
        has_role = {
            "previous": self.previous is not None and self.previous.version == entry.name,
            "canary": bool(registry.canary and registry.canary.version is version),
            "shadow": version is not None and self.shadow.version is version,
        }
        return {
            **entry.as_json(),
            "roles": [role for role, has in has_role.items() if has],
            "requests_under_way": registry.under_way(version) if version else 0,
            "answers": version.stats.answers if version else 0,
            "items": version.table.count if version else 0,
            **(content_of(version) if version else {}),
            "encoder": version.about_encoder if version else None,
        }

    def roles(self) -> dict[str, Any]:
        """Return which version has which role."""
        active, canary = self.registry.active, self.registry.canary
        return {
            "active": active.name if active else None,
            "previous": self.previous.version if self.previous else None,
            "canary": {"version": canary.version.name, "share": canary.share} if canary else None,
            "shadow": self.shadow.as_json(),
            "policy": self.settings.model_policy,
        }

    def marks(self) -> dict[str, str | None]:
        """Return what has each role, in words, for the time axis of the console."""
        canary, shadow = self.registry.canary, self.shadow.as_json()
        return {
            "active": self.registry.active.name if self.registry.active else None,
            "canary": f"{canary.version.name} {canary.share:.0%}" if canary else None,
            "shadow": f"{shadow['version']} {shadow['share']:.0%}" if shadow else None,
        }

    def freed(self) -> set[str]:
        """Return the versions that this process has taken out of service."""
        after = (State.DRAINING, State.UNLOADED)
        return {name for name, entry in self.entries.items() if entry.state in after}

    def desired_state(self) -> dict[str, Any]:
        """Return what this process serves, for the other processes of its fleet to serve too."""
        active, roles = self.active(), self.roles()
        shadow = roles["shadow"]
        return {
            "active": {"version": active.name, "digest": active.digest},
            "previous": self.previous.model_dump() if self.previous else None,
            "canary": roles["canary"],
            "shadow": shadow and {name: shadow[name] for name in ("version", "share")},
            "loaded": self.registry.loaded(),
        }
