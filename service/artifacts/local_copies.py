"""Stores this machine's own copies of bundles, which no other user can write to.

    PRIVATE/<models folder>/
        copies/<sha-256 of the manifest>/<version>/   a bundle; its folder is named for its version
        incoming/<owner>.<random>/<version>/          a copy in progress
        versions.json                                 version -> digest of every verified bundle
        state.json                                    see ``persisted_state``

Copies are content-addressed, so the processes of a machine share them and their mapped pages.
The folders belong to this user alone (``private_directory``): their content is served.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from feature_store.wording import worded
from model_export.bundle import plain_files
from model_export.bundle.errors import BundleError
from service.artifacts.owner import Owner
from service.artifacts.persisted_state import (
    MOST_BYTES,
    Copy,
    StateFile,
    as_json,
    locked,
    write_durably,
)
from service.observability.logs import logger
from service.private_directory import make_private

INCOMING_KEPT_S = 3600.0  # of a process on another host, which cannot be checked from here
COPIES_KEPT_S = 3600.0  # unreferenced here: another process may be about to open one
KNOWN = TypeAdapter(dict[str, str])  # ``versions.json``
MOST_VERSIONS = 10_000  # in ``versions.json``; the oldest are dropped


class LocalCopies:
    """The copies of one models folder, shared by the processes of a machine."""

    def __init__(self, root: Path, models: Path) -> None:
        resolved = models.resolve()
        mark = hashlib.sha256(os.fsencode(resolved)).hexdigest()[:12]
        self._root = root.absolute()
        self.path = self._root / f"{resolved.name}-{mark}"
        self.state = StateFile(self.path)
        self._copies, self._incoming = self.path / "copies", self.path / "incoming"
        self._versions = self.path / "versions.json"

    def prepare(self) -> None:
        """Create the folders and remove what killed processes left. NotPrivate or BundleError."""
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
        """Return where the copy with that content is, if it exists."""
        return self._copies / digest / version

    @contextmanager
    def incoming(self, version: str) -> Iterator[Path]:
        """Create a folder to copy a bundle into; removed at the end of the block unless adopted."""
        folder = self._incoming / Owner.this_process().name(secrets.token_hex(4))
        (folder / version).mkdir(parents=True, mode=0o700)
        try:
            yield folder / version
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, copied: Path, digest: str) -> Path:
        """Move a complete copy to its final name, or use the one that another process made first.

        A partial folder there, left by a process that was killed while removing it, is replaced.
        """
        final = self._copies / digest
        try:
            copied.parent.rename(final)
        except OSError:
            if not (final / copied.name).is_dir():
                _remove(final)
                copied.parent.rename(final)
        return final / copied.name

    def as_published(self, text: str, models: Path) -> str:
        """Replace paths of local copies in a message by those in the models folder."""
        ours = re.escape(str(self.path)) + r"/(?:incoming|copies)/[^/]+/"
        return re.sub(ours, lambda _: f"{models}/", text)

    def discard(self, copy: Copy) -> None:
        _remove(self._copies / copy.digest)

    def remove_others(self, digests: Iterable[str]) -> None:
        """Remove copies with other digests, unless recent: another process may use them."""
        state = self.state.read()
        kept = {*digests, *(c.digest for c in (state.active, state.previous, state.loading) if c)}
        oldest = self._now() - COPIES_KEPT_S
        for folder in self._copies.iterdir():
            try:
                if folder.name not in kept and folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder)
            except OSError as error:  # harmless; tried again next time
                logger.warning("old copy not removed", path=str(folder), reason=worded(error))

    def touch(self, digest: str) -> None:
        os.utime(self._copies / digest)

    def check_known(self, copy: Copy) -> None:
        """Raise BundleError if this version is known with other content."""
        known = self._known().get(copy.version)
        if known not in (None, copy.digest):
            raise BundleError(
                f"version {copy.version}: exists with other content: its manifest has sha-256 "
                f"{copy.digest[:16]}…, and the version known here has {known[:16]}…; a version is "
                f"immutable: publish it under a new name (or, if the old one was a mistake, remove "
                f"it from {self._versions})"
            )

    def know(self, copy: Copy) -> None:
        """Record this version's content. BundleError if it is known with other content."""
        with locked(self.path):
            self.check_known(copy)
            known = self._known()
            if copy.version not in known:
                known[copy.version] = copy.digest
                newest = dict(list(known.items())[-MOST_VERSIONS:])
                write_durably(self._versions, as_json(newest))

    def _known(self) -> dict[str, str]:
        try:
            return KNOWN.validate_json(plain_files.read(self._versions, MOST_BYTES))
        except FileNotFoundError:
            return {}
        except (BundleError, ValidationError) as error:
            raise BundleError(
                f"{self._versions}: cannot be read: {worded(error)}; restore it, or remove it to "
                "forget which content each version had"
            ) from error

    def _now(self) -> float:
        """Read the clock of this file system, which may be another host's."""
        os.utime(self._incoming)
        return self._incoming.stat().st_mtime


def _remove(path: Path) -> None:
    """Remove a folder, or a file of that name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_abandoned(folder: Path, oldest: float) -> bool:
    owner = Owner.of_name(folder.name)
    if owner is not None and owner.is_here:
        return not owner.runs
    return folder.stat().st_mtime < oldest
