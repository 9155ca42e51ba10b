"""Lists the versions in the models folder."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from model_export.bundle.bundle import check_file, read_manifest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MANIFEST
from service.artifacts.arrival import ArrivalTracker, FoundBundle
from service.artifacts.version_folders import version_folders

MOST_VERSIONS = 10_000  # that are opened: the last ones by name


class ModelRepository:
    """``path`` is a folder of bundles, or a single bundle."""

    def __init__(self, path: Path) -> None:
        self.path, self.single = path, os.path.lexists(path / MANIFEST)
        self._arrivals, self._looking = ArrivalTracker(), threading.Lock()

    @property
    def models(self) -> Path:
        """The folder that holds the bundles."""
        return self.path.resolve().parent if self.single else self.path

    def versions(self) -> dict[str, FoundBundle]:
        """Return all versions by name, incomplete ones included."""
        folders = self._folders()
        with self._looking:
            found = [self._arrivals.look(folder) for folder in folders]
            self._arrivals.keep_only(folders)
        return {one.version: one for one in found if one is not None}

    def folder(self, version: str) -> Path | None:
        """Find a version's folder. Names are compared with the listing, never joined to a path."""
        return next((folder for folder in self._folders() if folder.name == version), None)

    def look(self, version: str) -> FoundBundle | None:
        """Return one version's present state."""
        folder = self.folder(version)
        with self._looking:
            return None if folder is None else self._arrivals.look(folder)

    def newest_first(self) -> list[FoundBundle]:
        """List versions that may be started with or followed: complete, not dated in the future."""
        found = [one for one in self.versions().values() if one.whole and not one.ahead]
        return sorted(found, key=age, reverse=True)

    def newest(self) -> FoundBundle:
        """Return the first of ``newest_first``. BundleError if there is none."""
        for found in self.newest_first():
            return found
        raise BundleError(self.nothing())

    def nothing(self) -> str:
        """Explain why there is nothing to serve."""
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
        """Whether a version's files match the digests in its manifest. Reads them all."""
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
            return version_folders(self.path, MOST_VERSIONS)
        except (FileNotFoundError, NotADirectoryError):
            return []


def age(found: FoundBundle) -> tuple[float, str]:
    """Sort key of versions: newest last, unknown dates first."""
    return found.created.timestamp() if found.created else 0.0, found.version
