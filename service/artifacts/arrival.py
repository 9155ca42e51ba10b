"""Tells whether a bundle's folder is whole, or still arriving file by file.

A copying program (rsync, an object store's client) writes a bundle in any order, under other names
first or growing in place. How long nothing has changed is measured by this process's own clock:
the times of files are those of another machine, or of years ago.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import monotonic

import orjson

from model_export.bundle import plain_files
from model_export.bundle.bundle import parse_manifest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import (
    MANIFEST,
    MOST_AHEAD,
    MOST_MANIFEST_BYTES,
    SIGNATURE,
    Manifest,
)

SETTLED_S = 20.0  # without a change: what is wrong with it now is wrong with the bundle
MOST_FILES = 1000  # of a folder that are looked at
OF_A_BUNDLE = (".onnx", ".weights", ".npz")


@dataclass(frozen=True, slots=True)
class FoundBundle:
    """A version in the models folder, as it lies there now."""

    version: str
    created: datetime | None = None  # None: the manifest is missing or cannot be read
    fault: str | None = None  # why it cannot be read, or cannot be taken in
    lacks: str | None = None  # which of its files is missing, of another size, or too many
    mark: str = ""  # another one whenever any of its files changes
    quiet_s: float = 0.0  # for so long nothing has changed under our eyes
    folder: Path | None = None

    @property
    def settled(self) -> bool:
        return self.quiet_s >= SETTLED_S

    @property
    def whole(self) -> bool:
        """Its files are there, of the sizes that its manifest says."""
        return self.created is not None and self.fault is None and self.lacks is None

    @property
    def arriving(self) -> str | None:
        """What it waits for; None when it is whole, or will not get better by waiting."""
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
        """Why its date is not believed; None when it is."""
        now = datetime.now(UTC)
        if self.created is None or self.created - now <= MOST_AHEAD:
            return None
        return (
            f"created {self.created.isoformat()}, which is in the future by this host's clock "
            f"({now:%Y-%m-%dT%H:%M:%SZ}): left aside until then; set the clock or the date right, "
            "or activate it by name"
        )


@dataclass(slots=True)
class _Seen:
    found: FoundBundle
    at: float  # ``monotonic`` of the last change


class ArrivalTracker:
    """What folders looked like when they were last looked at. In one thread at a time."""

    def __init__(self) -> None:
        self._seen: dict[Path, _Seen] = {}

    def look(self, folder: Path) -> FoundBundle | None:
        """The folder as it is now; None for one that is no bundle's."""
        now, seen = monotonic(), self._seen.get(folder)
        try:
            files = _files(folder)
        except OSError as error:
            return FoundBundle(folder.name, fault=f"{folder}: {error.strerror}")
        except BundleError as error:
            return FoundBundle(folder.name, fault=str(error))
        mark = _mark(files)
        if seen is None or seen.found.mark != mark:
            found = _read(folder, files)
            if found is None:
                self._seen.pop(folder, None)
                return None
            seen = self._seen[folder] = _Seen(replace(found, mark=mark), now)
        return replace(seen.found, quiet_s=now - seen.at, folder=folder)

    def keep_only(self, folders: list[Path]) -> None:
        """Forget the others: they are gone."""
        for folder in self._seen.keys() - set(folders):
            del self._seen[folder]


def _files(folder: Path) -> dict[str, os.stat_result]:
    """By name, without following links."""
    if folder.is_symlink():
        raise BundleError(f"{folder}: a symbolic link; {plain_files.COPY_IT}")
    with os.scandir(folder) as entries:
        found = {e.name: e.stat(follow_symlinks=False) for e in islice(entries, MOST_FILES + 1)}
    if len(found) > MOST_FILES:
        raise BundleError(f"{folder}: holds more than {MOST_FILES:,} files, and so no bundle")
    return found


def _mark(files: dict[str, os.stat_result]) -> str:
    told = [
        (name, s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for name, s in sorted(files.items())
    ]
    return hashlib.sha256(repr(told).encode()).hexdigest()


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
        return FoundBundle(folder.name, fault=str(error))
    lacks = _lacks(manifest, files)
    fault = next((_not_plain(folder, n, s) for n, s in files.items() if not _is_plain(s)), None)
    return FoundBundle(folder.name, manifest.created, fault, lacks)


def _lacks(manifest: Manifest, files: dict[str, os.stat_result]) -> str | None:
    """The first difference between what is listed and what is there."""
    for name, record in manifest.files.items():
        if name not in files:
            return f"{name} is missing"
        if files[name].st_size != record.size and _is_plain(files[name]):
            return f"{name}: {files[name].st_size:,} of {record.size:,} bytes"
    surplus = sorted(files.keys() - manifest.files.keys() - {MANIFEST, SIGNATURE})
    return f"{surplus[0]} is not in the manifest" if surplus else None


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def _not_plain(folder: Path, name: str, status: os.stat_result) -> str:
    kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a plain file"
    return f"{folder / name}: {kind}; {plain_files.COPY_IT}"
