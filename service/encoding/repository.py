"""Finds encoder bundles: in a folder of them, or the one that the settings name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from model_export.bundle import plain_files
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MOST_MANIFEST_BYTES
from service.artifacts.version_folders import version_folders
from text.runtime.bundle import parse_manifest
from text.runtime.manifest import MANIFEST, EncoderManifest

MOST_VERSIONS = 1_000  # that are opened: the last ones by name


@dataclass(frozen=True, slots=True)
class FoundEncoder:
    """An encoder bundle, whose files have not been read yet."""

    folder: Path
    manifest: EncoderManifest

    @property
    def content(self) -> str | None:
        """Digest of its contents; None if it has no map."""
        said = self.manifest.content
        return None if said is None else said.digest

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(record.size for record in self.manifest.files.values())


class EncoderRepository:
    """``path`` is a folder of bundles, or a single bundle."""

    def __init__(self, path: Path) -> None:
        self.path, self.single = path, os.path.lexists(path / MANIFEST)

    @property
    def encoders(self) -> Path:
        """The folder that holds the bundles."""
        return self.path.resolve().parent if self.single else self.path

    @property
    def _build(self) -> str:
        return f"`python -m text build CHECKPOINT --out {self.encoders}` makes one"

    def find(self, content: str | None) -> FoundEncoder:
        """Return the newest bundle whose contents have this digest; None: the newest of all.

        BundleError lists those that there are. Blocks.
        """
        found, faults = list[FoundEncoder](), list[str]()
        for folder in self._folders():
            try:
                manifest = plain_files.read(folder / MANIFEST, MOST_MANIFEST_BYTES)
                found.append(FoundEncoder(folder, parse_manifest(folder, manifest)))
            except FileNotFoundError:
                faults.append(f"{folder / MANIFEST}: not found; {self._build}")
            except BundleError as error:
                faults.append(str(error))
        fitting = [one for one in found if content in (None, one.content)]
        if fitting:
            return max(fitting, key=lambda one: (one.manifest.created, one.manifest.version))
        if not found:
            nothing = f"{self.path}: holds no encoder bundle (QIN_ENCODER); {self._build}"
            raise BundleError(faults[0] if faults else nothing)
        there = ", ".join(
            f"{one.manifest.version} ({one.content or 'no map'})"
            for one in sorted(found, key=lambda one: one.manifest.version)
        )
        raise BundleError(
            f"{self.path}: no encoder makes contents of digest {content}; there are: {there}; put "
            "the encoder that the model was trained with beside them"
        )

    def _folders(self) -> list[Path]:
        if self.single:
            return [self.path.resolve()]
        try:
            return version_folders(self.path, MOST_VERSIONS)
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(f"{self.path}: not found (QIN_ENCODER); {self._build}") from None
