"""Persists what a restart needs: which version was active, and which was being loaded.

Files are written under another name, synced and renamed. A lock file serialises changes by the
processes of one machine.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from feature_store.wording import worded
from model_export.bundle import plain_files
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import Version
from service.artifacts.owner import Owner
from service.observability.logs import logger

MAKE_ROOM = "make room there or set QIN_PRIVATE to a place that has it"
MOST_BYTES = 16 << 20  # of a file that is read back
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NAMES = TypeAdapter(tuple[Version, Digest])


class Copy(BaseModel):
    """Identifies a copied bundle by version and content."""

    model_config = ConfigDict(frozen=True)

    version: str
    digest: str  # sha-256 of the manifest


class Loading(Copy):
    """A copy that is being loaded, and the process that loads it (see ``Owner``)."""

    host: str
    pid: int
    boot: str | None = None
    started: int | None = None

    @classmethod
    def by_this_process(cls, copy: Copy) -> Loading:
        return cls(**copy.model_dump(), **asdict(Owner.this_process()))

    def is_interrupted(self) -> bool:
        owner = Owner(self.host, self.pid, self.boot, self.started)
        return owner.is_here and not owner.runs


class PersistedState(BaseModel):
    """The content of ``state.json``."""

    active: Copy | None = None
    previous: Copy | None = None
    loading: Loading | None = None  # set before a load and cleared after it, unless it was killed
    interrupted: str | None = None  # the version whose load killed a process
    followed: str | None = None  # the newest version ever followed,
    followed_created: AwareDatetime | None = None  # and its date, in case its folder is removed

    @field_validator("active", "previous", "loading")
    @classmethod
    def _names_a_copy(cls, copy: Copy | None) -> Copy | None:
        """Check version and digest: both become names of folders."""
        if copy is not None:
            NAMES.validate_python((copy.version, copy.digest))
        return copy


class StateFile:
    """Reads and changes ``state.json`` of one models folder's private directory."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._file = directory, directory / "state.json"

    def read(self) -> PersistedState:
        """Return the state, empty if the file is missing or cannot be read."""
        try:
            return PersistedState.model_validate_json(plain_files.read(self._file, MOST_BYTES))
        except FileNotFoundError:
            return PersistedState()
        except (BundleError, ValidationError) as error:
            logger.error(
                "state not read: starting as if new", path=str(self._file), reason=worded(error)
            )
            return PersistedState()

    def update(self, **changed: Any) -> PersistedState:
        """Change some fields, durably. BundleError if the file cannot be written."""
        with locked(self._directory):
            state = self.read().model_copy(update=changed)
            write_durably(self._file, as_json(state.model_dump(mode="json")))
        return state

    def try_update(self, consequence: str, **changed: Any) -> PersistedState:
        """Like ``update``, but log a failure, with its ``consequence``, instead of raising it."""
        try:
            return self.update(**changed)
        except BundleError as error:
            logger.error(f"state not saved: {consequence}", reason=str(error))
            return self.read().model_copy(update=changed)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock. BundleError if the lock file cannot be opened."""
    file = directory / "lock"
    try:
        lock = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BundleError(f"{file}: cannot be opened: {error.strerror}; {MAKE_ROOM}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_durably(file: Path, content: bytes) -> None:
    """Replace a file atomically and sync it. BundleError if it cannot be written."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise BundleError(f"{file}: cannot be written: {error.strerror}; {MAKE_ROOM}") from error


def as_json(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"
