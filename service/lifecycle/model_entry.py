"""What a version is going through, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from service.models.registry import LoadedModel


class State(StrEnum):
    """In the order a version passes them; FAILED may follow any that comes before READY."""

    ARRIVING = "arriving"  # in the models folder, but not all of it yet: see ``reason``
    AVAILABLE = "available"  # in the models folder
    LOADING = "loading"  # files copied and checked, proved in a child, graphs and items read
    WARMING = "warming"
    VERIFYING = "verifying"  # the golden answers once more, in this process
    READY = "ready"  # in memory: may answer whoever asks for it by name
    ACTIVE = "active"
    DRAINING = "draining"  # answers what it began and is then freed
    UNLOADED = "unloaded"
    FAILED = "failed"  # see ``reason``


IN_MEMORY = frozenset({State.READY, State.ACTIVE, State.DRAINING})
UNDER_WAY = frozenset({State.LOADING, State.WARMING, State.VERIFYING})


@dataclass(slots=True)
class ModelEntry:
    """One version as this process knows it."""

    name: str
    state: State = State.AVAILABLE
    reason: str | None = None  # why it failed, or was taken back, and what to do about it
    step: str | None = None  # what is under way, in words
    digest: str | None = None  # sha-256 of the manifest, once taken in
    signer: str | None = None  # fingerprint of the key that signed it
    created: datetime | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))  # of the state
    load_seconds: float | None = None
    worst_stall_ms: float | None = None  # of the event loop, while it was loaded
    version: LoadedModel | None = None
    mark: str | None = None  # of its folder when a load began (see ``FoundBundle``)

    def enter(self, state: State, step: str | None = None, reason: str | None = None) -> None:
        if state is not self.state:
            self.since = datetime.now(UTC)
        self.state, self.step, self.reason = state, step, reason

    def as_json(self) -> dict[str, Any]:
        return {
            "version": self.name,
            "state": self.state.value,
            "reason": self.reason,
            "step": self.step,
            "digest": self.digest,
            "signer": self.signer,
            "created": self.created,
            "since": self.since,
            "load_seconds": self.load_seconds,
            "worst_stall_ms": self.worst_stall_ms,
        }
