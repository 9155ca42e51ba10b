"""The models folder: which versions there are to load."""

from __future__ import annotations

import os
import re
import threading
from heapq import nlargest
from itertools import islice
from pathlib import Path

from model_export.bundle.bundle import check_file, read_manifest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MANIFEST, VERSION_PATTERN
from service.artifacts.arrival import ArrivalTracker, FoundBundle

MOST_ENTRIES = 100_000  # of the folder that are read: of more, which ones is left to chance
MOST_VERSIONS = 10_000  # of them that are looked into: the last ones by name


class ModelRepository:
    """``path``: a folder of bundles, or one bundle, which is then all there is."""

    def __init__(self, path: Path) -> None:
        self.path, self.single = path, os.path.lexists(path / MANIFEST)
        self._arrivals, self._looking = ArrivalTracker(), threading.Lock()

    @property
    def models(self) -> Path:
        """The folder that bundles are in."""
        return self.path.resolve().parent if self.single else self.path

    def versions(self) -> dict[str, FoundBundle]:
        """By name, also those that are still arriving."""
        folders = self._folders()
        with self._looking:
            found = [self._arrivals.look(folder) for folder in folders]
            self._arrivals.keep_only(folders)
        return {one.version: one for one in found if one is not None}

    def folder(self, version: str) -> Path | None:
        """Where a version's bundle is. It is found among the folder's names, never made a path."""
        return next((folder for folder in self._folders() if folder.name == version), None)

    def look(self, version: str) -> FoundBundle | None:
        """One version."""
        folder = self.folder(version)
        with self._looking:
            return None if folder is None else self._arrivals.look(folder)

    def newest_first(self) -> list[FoundBundle]:
        """Those that may be begun with or followed: whole, and not of the future."""
        found = [one for one in self.versions().values() if one.whole and not one.ahead]
        return sorted(found, key=age, reverse=True)

    def newest(self) -> FoundBundle:
        """The first of ``newest_first``. BundleError when there is none."""
        for found in self.newest_first():
            return found
        raise BundleError(self.nothing())

    def nothing(self) -> str:
        """Why there is nothing to serve."""
        for version, found in self.versions().items():
            if found.fault is not None:
                return found.fault
            where = self.path if self.single else self.path / version
            return f"{where}: {found.arriving or found.ahead}"
        return (
            f"{self.path}: holds no bundle; build one with "
            f"`python -m model_export build CHECKPOINT --out {self.path}`"
        )

    def digests_fit(self, version: str) -> bool:
        """Whether a version's files are what its manifest says, now. Reads them all."""
        folder = self.folder(version)
        if folder is None:
            return False
        try:
            for name, record in read_manifest(folder).files.items():
                check_file(folder / name, record)
        except BundleError:
            return False
        return True

    def _folders(self) -> list[Path]:
        if self.single:
            return [self.path.resolve()]
        try:
            with os.scandir(self.path) as entries:
                names = nlargest(
                    MOST_VERSIONS,
                    (
                        entry.name
                        for entry in islice(entries, MOST_ENTRIES)
                        if re.fullmatch(VERSION_PATTERN, entry.name) and _is_folder(entry)
                    ),
                )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise BundleError(
                f"{self.path}: cannot be read: {error.strerror}; let uid {os.geteuid()} read it"
            ) from error
        return [self.path / name for name in sorted(names)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also through a link, so that its refusal is told. One that leads nowhere is none."""
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, or one into a folder that is closed to us
        return False


def age(found: FoundBundle) -> tuple[float, str]:
    """The order of versions: the newest last, unknown ones first."""
    return found.created.timestamp() if found.created else 0.0, found.version
