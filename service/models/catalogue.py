"""The models folder: which versions there are to load."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from model_export.bundle import bundle_folders, read_manifest
from model_export.errors import BundleError
from model_export.manifest import MANIFEST


@dataclass(frozen=True, slots=True)
class Found:
    """A version in the folder; ``fault`` when its manifest cannot be read."""

    version: str
    created: datetime | None = None
    fault: str | None = None


class Catalogue:
    """``path``: a folder of bundles, or one bundle, which is then all there is."""

    def __init__(self, path: Path) -> None:
        self.path, self.single = path, (path / MANIFEST).exists()

    @property
    def models(self) -> Path:
        """The folder that bundles are in."""
        return self.path.resolve().parent if self.single else self.path

    def versions(self) -> dict[str, Found]:
        folders = [self.path] if self.single else bundle_folders(self.path)
        return {folder.resolve().name: _look(folder) for folder in folders}

    def folder(self, version: str) -> Path | None:
        """Where a version's bundle is. It is found among the folder's names, never made a path."""
        folders = [self.path.resolve()] if self.single else bundle_folders(self.path)
        return next((folder for folder in folders if folder.name == version), None)

    def newest(self) -> Found:
        """The most recently created one. BundleError when there is none to read."""
        found = list(self.versions().values())
        readable = [one for one in found if one.created is not None]
        if readable:
            return max(readable, key=lambda one: (one.created, one.version))
        if found:
            raise BundleError(found[0].fault)
        raise BundleError(
            f"{self.path}: holds no bundle; build one with "
            f"`python -m model_export build CHECKPOINT --out {self.path}`"
        )


def _look(folder: Path) -> Found:
    try:
        return Found(folder.resolve().name, created=read_manifest(folder).created)
    except BundleError as error:
        return Found(folder.resolve().name, fault=str(error))
