"""Detects whether a bundle's folder is complete or still being copied.

Copying programs (rsync, an object store's client) write files in any order, under temporary names
or growing in place. The time without a change is measured by this process's clock: file times may
be another machine's, or years old.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import monotonic

import orjson

from feature_store.wording import with_file
from model_export.bundle import plain_files
from model_export.bundle.bundle import parse_manifest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import (
    MANIFEST,
    MOST_AHEAD,
    MOST_MANIFEST_BYTES,
    SIGNATURE,
    FileRecord,
)

SETTLED_S = 20.0  # without a change, after which a fault is the bundle's own
MOST_FILES = 1000  # in a folder
OF_A_BUNDLE = (".onnx", ".weights", ".npz")
Records = Mapping[str, FileRecord]  # of a manifest, by name


@dataclass(frozen=True, slots=True)
class FoundBundle:
    """A version in the models folder, as found at one time."""

    version: str
    created: datetime | None = None  # None: no readable manifest
    fault: str | None = None  # why it cannot be read or imported
    lacks: str | None = None  # a file that is missing, incomplete or surplus
    mark: str = ""  # changes whenever any of its files does
    quiet_s: float = 0.0  # time without a change
    folder: Path | None = None

    @property
    def settled(self) -> bool:
        return self.quiet_s >= SETTLED_S

    @property
    def whole(self) -> bool:
        """Whether all files are there, with the sizes in the manifest."""
        return self.created is not None and self.fault is None and self.lacks is None

    @property
    def arriving(self) -> str | None:
        """What is still missing; None if it is complete, or cannot be completed."""
        if self.lacks is None:
            return None
        if not self.settled:
            return self.lacks
        return (
            f"{self.lacks}; nothing has changed for {self.quiet_s:.0f} s: copy the bundle to "
            f"{self.folder} again, or remove that folder"
        )

    @property
    def ahead(self) -> str | None:
        """Why its date is not accepted; None if it is."""
        ahead = None if self.created is None else in_future(self.created)
        return None if ahead is None else f"{ahead}, or activate it by name"


def in_future(created: datetime) -> str | None:
    """Return why a bundle's date is not accepted; None if it is."""
    now = datetime.now(UTC)
    if created - now <= MOST_AHEAD:
        return None
    return (
        f"created {created.isoformat()}, which is in the future by this host's clock "
        f"({now:%Y-%m-%dT%H:%M:%SZ}): ignored until then; correct the clock or the date"
    )


def not_whole(folder: Path, records: Records) -> str | None:
    """Return what in a folder differs from its manifest's ``records``, by sizes alone; None if
    nothing does."""
    try:
        files = _files(folder)
    except (BundleError, OSError) as error:
        return with_file(error)
    lacks = _lacks(records, files)
    return _not_plain(folder, files) if lacks is None else f"{folder}: {lacks}"


class ArrivalTracker:
    """Remembers each folder's last state. Used in one thread at a time."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[FoundBundle, float]] = {}  # and ``monotonic`` of the change

    def look(self, folder: Path) -> FoundBundle | None:
        """Return the folder's present state; None if it holds no bundle."""
        now, seen = monotonic(), self._seen.get(folder)
        try:
            files = _files(folder)
        except OSError as error:
            return FoundBundle(folder.name, fault=f"{folder}: {error.strerror}")
        except BundleError as error:
            return FoundBundle(folder.name, fault=str(error))
        mark = _mark(files)
        if seen is None or seen[0].mark != mark:
            found = _read(folder, files)
            if found is None:
                self._seen.pop(folder, None)
                return None
            seen = self._seen[folder] = replace(found, mark=mark), now
        return replace(seen[0], quiet_s=now - seen[1], folder=folder)

    def keep_only(self, folders: list[Path]) -> None:
        """Forget folders that no longer exist."""
        for folder in self._seen.keys() - set(folders):
            del self._seen[folder]


def _files(folder: Path) -> dict[str, os.stat_result]:
    """Return file status by name, without following links."""
    if folder.is_symlink():
        raise BundleError(f"{folder}: a symbolic link; {plain_files.COPY_IT}")
    with os.scandir(folder) as entries:
        found = {e.name: e.stat(follow_symlinks=False) for e in islice(entries, MOST_FILES + 1)}
    if len(found) > MOST_FILES:
        raise BundleError(f"{folder}: holds more than {MOST_FILES:,} files, which no bundle does")
    return found


def _mark(files: dict[str, os.stat_result]) -> str:
    status = [
        (name, s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for name, s in sorted(files.items())
    ]
    return hashlib.sha256(repr(status).encode()).hexdigest()


def _read(folder: Path, files: dict[str, os.stat_result]) -> FoundBundle | None:
    if MANIFEST not in files:
        if any(name.endswith(OF_A_BUNDLE) or MANIFEST in name for name in files):
            return FoundBundle(folder.name, lacks=f"{MANIFEST} is missing")
        return None
    try:
        content = plain_files.read(folder / MANIFEST, MOST_MANIFEST_BYTES)
        orjson.loads(content)
        manifest = parse_manifest(folder, content)
    except orjson.JSONDecodeError as error:
        return FoundBundle(folder.name, lacks=f"{MANIFEST} is not JSON, or breaks off: {error}")
    except (BundleError, OSError) as error:
        return FoundBundle(folder.name, fault=with_file(error))
    fault, lacks = _not_plain(folder, files), _lacks(manifest.files, files)
    return FoundBundle(folder.name, manifest.created, fault, lacks)


def _lacks(records: Records, files: dict[str, os.stat_result]) -> str | None:
    """Return the first difference between the manifest and the folder."""
    for name, record in records.items():
        if name not in files:
            return f"{name} is missing"
        if files[name].st_size != record.size and _is_plain(files[name]):
            return f"{name}: {files[name].st_size:,} of {record.size:,} bytes"
    surplus = sorted(files.keys() - records.keys() - {MANIFEST, SIGNATURE})
    return f"{surplus[0]} is not in the manifest" if surplus else None


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def _not_plain(folder: Path, files: dict[str, os.stat_result]) -> str | None:
    """Name the first of the files that is none; None if all are."""
    for name, status in files.items():
        if not _is_plain(status):
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a plain file"
            return f"{folder / name}: {kind}; {plain_files.COPY_IT}"
    return None
