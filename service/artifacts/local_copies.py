"""The private place: copies of bundles that nobody else writes to, and what outlives a restart.

    PRIVATE/<models folder>/
        copies/<sha-256 of the manifest>/<version>/   a bundle; its folder bears its version's name
        incoming/<owner>.<random>/<version>/          one still being copied
        versions.json                                 version -> digest, of all that were proved
        state.json                                    what was active, what was being loaded

Copies are named by content, so several processes of one machine share them, and with them the
mapped pages. Everything is written to another name first and renamed. The folders belong to this
user alone (``private_directory``): what is read back from them is served.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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

from model_export.bundle import plain_files
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import Version
from service.artifacts.owner import Owner
from service.artifacts.private_directory import make_private
from service.observability.logs import logger

INCOMING_KEPT_S = 3600.0  # of a process on another host, whose end cannot be seen from here
COPIES_KEPT_S = 3600.0  # that no process of ours names: another may be about to open one
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAKE_ROOM = "make room there or set QIN_PRIVATE to a place that has it"
KNOWN = TypeAdapter(dict[str, str])  # ``versions.json``
NAMES = TypeAdapter(tuple[Version, Digest])
MOST_BYTES = 16 << 20  # of a file of ours that is read back
MOST_VERSIONS = 10_000  # remembered with their digests; the oldest are forgotten


class Copy(BaseModel):
    """A version and the content it had."""

    model_config = ConfigDict(frozen=True)

    version: str
    digest: str


class Loading(Copy):
    """One being loaded, and by which process (see ``Owner``)."""

    host: str
    pid: int
    boot: str | None = None
    started: int | None = None

    def is_interrupted(self) -> bool:
        owner = Owner(self.host, self.pid, self.boot, self.started)
        return owner.is_here and not owner.runs


class Remembered(BaseModel):
    """``state.json``"""

    active: Copy | None = None
    previous: Copy | None = None
    loading: Loading | None = None  # set before a load, cleared after: still there, it was killed
    interrupted: str | None = None  # the version that a process did not survive loading
    followed: str | None = None  # the newest version that was ever followed,
    followed_created: AwareDatetime | None = None  # and its date, should its folder be gone

    @field_validator("active", "previous", "loading")
    @classmethod
    def _names_a_copy(cls, copy: Copy | None) -> Copy | None:
        """Both become names of folders."""
        if copy is not None:
            NAMES.validate_python((copy.version, copy.digest))
        return copy


class PrivateFolder:
    """One per models folder, shared by the processes of a machine."""

    def __init__(self, root: Path, models: Path) -> None:
        resolved = models.resolve()
        mark = hashlib.sha256(os.fsencode(resolved)).hexdigest()[:12]
        self._root = root.absolute()
        self.path = self._root / f"{resolved.name}-{mark}"
        self._copies, self._incoming = self.path / "copies", self.path / "incoming"
        self._state, self._versions = self.path / "state.json", self.path / "versions.json"

    def prepare(self) -> None:
        """Make the folders, remove what killed processes left. NotPrivate or BundleError when it
        cannot."""
        for folder in (self._root, self.path, self._copies, self._incoming):
            make_private(folder, "QIN_PRIVATE")
        try:
            oldest = self._now() - INCOMING_KEPT_S
            for left in self._incoming.iterdir():
                if _is_abandoned(left, oldest):
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise BundleError(
                f"{self._incoming}: cannot be cleared: {error.strerror}; make it readable, or set "
                "QIN_PRIVATE to another folder"
            ) from error

    def copy(self, digest: str, version: str) -> Path:
        """Where the copy of that content is, if it is there."""
        return self._copies / digest / version

    @contextmanager
    def incoming(self, version: str) -> Iterator[Path]:
        """A folder to copy a bundle into; gone by the end of the block unless adopted."""
        folder = self._incoming / Owner.this_process().name(secrets.token_hex(4))
        (folder / version).mkdir(parents=True, mode=0o700)
        try:
            yield folder / version
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, copied: Path, digest: str) -> Path:
        """Give a whole copy its name. If another process was faster, its copy is as good; what a
        process left there that was killed while it removed one makes room."""
        final = self._copies / digest
        try:
            copied.parent.rename(final)
        except OSError:
            if not (final / copied.name).is_dir():
                _remove(final)
                copied.parent.rename(final)
        return final / copied.name

    def as_published(self, text: str, models: Path) -> str:
        """A message in the terms of whoever published: their folder, not where we keep copies."""
        ours = re.escape(str(self.path)) + r"/(?:incoming|copies)/[^/]+/"
        return re.sub(ours, lambda _: f"{models}/", text)

    def discard(self, copy: Copy) -> None:
        _remove(self._copies / copy.digest)

    def forget_others(self, digests: Iterable[str]) -> None:
        """Remove copies that are none of these, unless used lately (another process may be)."""
        state = self.remembered()
        kept = {*digests, *(c.digest for c in (state.active, state.previous, state.loading) if c)}
        oldest = self._now() - COPIES_KEPT_S
        for folder in self._copies.iterdir():
            try:
                if folder.name not in kept and folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder)
            except OSError as error:  # in the way of nothing; tried again next time
                logger.warning("old copy not removed", path=str(folder), reason=str(error))

    def touch(self, digest: str) -> None:
        os.utime(self._copies / digest)

    def check_known(self, copy: Copy) -> None:
        """BundleError when this version was once taken in with other content."""
        known = self._known().get(copy.version)
        if known not in (None, copy.digest):
            raise BundleError(
                f"version {copy.version}: exists with other content: its manifest has sha-256 "
                f"{copy.digest[:16]}…, and the version known here has {known[:16]}…; a version is "
                f"immutable: publish it under a new name (or, if the old one was a mistake, remove "
                f"it from {self._versions})"
            )

    def know(self, copy: Copy) -> None:
        """From now on this version has this content. BundleError if it has another."""
        with self._locked():
            self.check_known(copy)
            known = self._known()
            if copy.version not in known:
                known[copy.version] = copy.digest
                newest = dict(list(known.items())[-MOST_VERSIONS:])
                write(self._versions, _as_json(newest))

    def remembered(self) -> Remembered:
        """What outlived the last process; nothing of a file that cannot be read."""
        try:
            return Remembered.model_validate_json(plain_files.read(self._state, MOST_BYTES))
        except FileNotFoundError:
            return Remembered()
        except (BundleError, ValidationError) as error:
            logger.error(
                "state not read: starting as if new", path=str(self._state), reason=str(error)
            )
            return Remembered()

    def remember(self, **changed: Any) -> Remembered:
        """Change some fields. On disk when it returns; BundleError where it cannot be."""
        with self._locked():
            state = self.remembered().model_copy(update=changed)
            write(self._state, _as_json(state.model_dump(mode="json")))
        return state

    def try_to_remember(self, otherwise: str, **changed: Any) -> Remembered:
        """As ``remember``; where that cannot be, the log says what happens ``otherwise``."""
        try:
            return self.remember(**changed)
        except BundleError as error:
            logger.error(f"not remembered: {otherwise}", reason=str(error))
            return self.remembered().model_copy(update=changed)

    def is_loaded_by_us(self, copy: Copy) -> dict[str, Any]:
        """What is remembered while ``copy`` is being loaded, so that a killed process shows."""
        owner = Owner.this_process()
        return {
            "loading": Loading(
                version=copy.version,
                digest=copy.digest,
                host=owner.host,
                pid=owner.pid,
                boot=owner.boot,
                started=owner.started,
            ),
        }

    def _known(self) -> dict[str, str]:
        try:
            return KNOWN.validate_json(plain_files.read(self._versions, MOST_BYTES))
        except FileNotFoundError:
            return {}
        except (BundleError, ValidationError) as error:
            raise BundleError(
                f"{self._versions}: cannot be read: {error}; restore it, or remove it to forget "
                "which content each version had"
            ) from error

    def _now(self) -> float:
        """By the clock that the times of files here are of: it may be another host's."""
        os.utime(self._incoming)
        return self._incoming.stat().st_mtime

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Among the processes of this machine. BundleError where there is nothing to lock."""
        file = self.path / "lock"
        try:
            lock = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BundleError(f"{file}: cannot be opened: {error.strerror}; {MAKE_ROOM}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def write(file: Path, content: bytes) -> None:
    """Whole and on disk, or not at all. BundleError when there is no room for it."""
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


def _remove(path: Path) -> None:
    """A folder, or what else has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _as_json(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"


def _is_abandoned(folder: Path, oldest: float) -> bool:
    owner = Owner.of_name(folder.name)
    if owner is not None and owner.is_here:
        return not owner.runs
    return folder.stat().st_mtime < oldest
