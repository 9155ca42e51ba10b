"""Every version this process knows: what it goes through, and which part it plays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from service.artifacts.local_copies import Copy
from service.artifacts.repository import Catalogue
from service.errors import Conflict, UnknownVersion
from service.lifecycle.model_entry import Slot, State
from service.lifecycle.shadow import Shadow
from service.models.registry import ALIASES, Versions
from service.settings import Settings

GONE = (State.ARRIVING, State.AVAILABLE, State.UNLOADED)
NOT_TRIED = (State.ARRIVING, State.AVAILABLE)


class Roster:
    """Slots by name. On the event loop alone."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, versions: Versions, shadow: Shadow
    ) -> None:
        self.settings, self.catalogue = settings, catalogue
        self.versions, self.shadow = versions, shadow
        self.slots: dict[str, Slot] = {}
        self.previous: Copy | None = None  # also when it is no longer in memory

    def slot(self, name: str) -> Slot:
        return self.slots.setdefault(name, Slot(name))

    def active(self) -> Slot:
        if self.versions.active is None:
            raise Conflict("nothing is active yet")
        return self.slots[self.versions.active.name]

    async def known(self, name: str) -> Slot:
        """By name or alias. UnknownVersion lists what there is."""
        if name in ALIASES:
            name = self.roles()[name] or name
        if name in self.slots and self.slots[name].state not in GONE:
            return self.slots[name]
        found = await asyncio.to_thread(self.catalogue.versions)
        if name not in found:
            there = sorted({*found, *self.versions.loaded()})
            raise UnknownVersion(
                f"version {name!r}: not in {self.catalogue.path}; there are: "
                f"{', '.join(there) or 'none'}",
                members={"available": there},
            )
        return self.slot(name)

    async def listing(self) -> list[dict[str, Any]]:
        """Every version there is, newest first."""
        found = await asyncio.to_thread(self.catalogue.versions)
        for name, one in found.items():
            slot = self.slot(name)
            slot.created = one.created or slot.created
            changed = slot.state is State.FAILED and slot.mark not in (None, one.mark)
            if slot.state in NOT_TRIED or changed:
                state = State.ARRIVING if one.arriving else State.AVAILABLE
                slot.enter(state, reason=one.fault or one.arriving or one.ahead)
        for name in [n for n, s in self.slots.items() if n not in found and s.state in GONE]:
            del self.slots[name]
        newest = sorted(
            self.slots.values(),
            key=lambda s: (s.created.timestamp() if s.created else 0.0, s.name),
            reverse=True,
        )
        return [self.describe(slot) for slot in newest]

    def passed_over(self, reasons: Mapping[str, str]) -> None:
        """Versions that a start could not begin with; what still arrives is not refused."""
        for name, found in self.catalogue.versions().items():
            if name in reasons and found.whole and not found.ahead:
                self.slot(name).enter(State.FAILED, reason=reasons[name])
                self.slot(name).mark = found.mark

    def describe(self, slot: Slot) -> dict[str, Any]:
        versions, version = self.versions, slot.version
        plays = {
            "previous": self.previous is not None and self.previous.version == slot.name,
            "canary": bool(versions.canary and versions.canary.version is version),
            "shadow": version is not None and self.shadow.version is version,
        }
        return {
            **slot.as_json(),
            "roles": [role for role, played in plays.items() if played],
            "requests_under_way": versions.under_way(version) if version else 0,
            "answers": version.tally.answers if version else 0,
            "items": version.table.count if version else 0,
        }

    def roles(self) -> dict[str, Any]:
        """Who plays which part."""
        active, canary = self.versions.active, self.versions.canary
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
            "loaded": self.versions.loaded(),
        }
