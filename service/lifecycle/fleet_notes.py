"""Defines and reads the notes of a fleet, and tells which processes are alive."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.contract import FeatureStore
from feature_store.errors import StoreRefused
from feature_store.wording import details, place, reason
from model_export.bundle.manifest import Version
from service.artifacts.owner import boot_id, started
from service.observability.logs import logger

M = TypeVar("M", bound=BaseModel)
ENDS = ("unload", "automatic_rollback")  # commands after which no process has that version
SWITCHES = ("activate", "promote", "rollback", "automatic_rollback")
GONE_AFTER_S = 35.0  # without a change of the report, by this process's clock
MOST_BYTES = 65_536  # of a note
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(max_length=512)]
Text = Annotated[str, Field(max_length=16_384)]


class _Note(BaseModel):
    """Rejects unknown fields: another release may require that they are honoured."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Served(_Note):
    version: Version
    digest: Digest | Annotated[str, Field(pattern="^$")]


class Share(_Note):
    version: Version
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class DesiredState(_Note):
    """What every process of the fleet should serve."""

    id: Name
    by: Name  # the process that set it
    active: Served
    previous: Served | None = None
    canary: Share | None = None
    shadow: Share | None = None
    loaded: Annotated[list[Version], Field(max_length=64)] = []


def with_unreached(
    served: dict[str, Any],
    before: DesiredState,
    command: str,
    version: str | None,
    freed: set[str],
) -> dict[str, Any]:
    """Return what a process serves after a command, with what ``before`` desires besides and the
    process has not reached yet. ``freed``: versions that it has taken out of service."""
    wanted, gone = before.model_dump(), freed | ({version} if command in ENDS else set())
    merged = dict(served)
    if command not in SWITCHES and before.active.version not in gone:
        merged |= {"active": wanted["active"], "previous": wanted["previous"]}
    for part in ("canary", "shadow"):
        asked = served[part] if command == part else wanted[part]
        lost = asked and asked["version"] in gone | {merged["active"]["version"]}
        merged[part] = None if lost else asked
    roles = (merged[role] for role in ("active", "previous", "canary", "shadow"))
    kept = {role["version"] for role in roles if role} | {version}
    merged["loaded"] = sorted((kept & set(served["loaded"]) | set(before.loaded)) - gone)
    return merged


class Report(BaseModel):
    """The report that one process writes."""

    id: Name
    host: Name
    pid: int
    mark: Name = ""  # pid namespace and start time
    active: Name | None = None
    done: Name | None = None  # id of the last desired state, reached or not
    fault: Text | None = None
    at: float = 0.0  # seconds since 1970 by its own clock, for earlier releases


@dataclass(slots=True)
class Notes:
    """Reads notes. An unreadable one is logged once and ignored."""

    store: FeatureStore
    _logged: dict[str, bytes] = field(default_factory=dict)  # note -> digest of its content

    async def get(self, note: str, kind: type[M]) -> M | None:
        """Read a note from the store. StoreError, unless only this note cannot be read."""
        try:
            content = await self.store.get_note(note)
        except StoreRefused as error:
            if not error.of_one_key:
                raise
            self._ignore(note, str(error).encode(), str(error))
            return None
        return self.read(note, content, kind)

    def read(self, note: str, content: bytes | None, kind: type[M]) -> M | None:
        if content is None:
            return None
        try:
            if len(content) > MOST_BYTES:
                raise ValueError(f"{len(content):,} bytes, and at most {MOST_BYTES:,} are read")
            found = kind.model_validate_json(content)
        except ValueError as error:  # of another release, or damaged
            self._ignore(note, content, _reason(error))
            return None
        self._logged.pop(note, None)
        return found

    def _ignore(self, note: str, content: bytes, reason: str) -> None:
        digest = hashlib.sha256(content).digest()
        if self._logged.get(note) != digest:
            self._logged[note] = digest
            logger.error("fleet: note ignored", note=note, reason=reason)


@dataclass(slots=True)
class LivenessTracker:
    """Remembers when each report last changed, by this process's clock: clocks of hosts differ."""

    _seen: dict[int, tuple[Report, float]] = field(default_factory=dict)  # by place

    def is_alive(self, place: int, report: Report) -> bool:
        """Whether a process runs: known for this machine, else by changes of its report."""
        now = monotonic()
        before, at = self._seen.get(place, (None, now))
        if before != report:
            self._seen[place], at = (report, now), now
        here, _, began = report.mark.rpartition(":")
        if began and here == _here():
            return str(started(report.pid)) == began
        return now - at < GONE_AFTER_S


def mark_of_this_process() -> str:
    return f"{_here()}:{started(os.getpid())}"


@lru_cache(maxsize=1)
def _here() -> str:
    """Identify this pid namespace: the boot of the machine, and the container."""
    try:
        return f"{boot_id()}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _reason(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = details(error)[0]
        return place(first) + reason(first)
    return str(error)
