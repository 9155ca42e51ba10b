"""Finds encoder bundles: in a folder of them, or the one that the settings name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from model_export.bundle import plain_files
from model_export.bundle.errors import BundleError, NotYet
from model_export.bundle.manifest import MOST_MANIFEST_BYTES
from service.artifacts.arrival import in_future, not_whole
from service.artifacts.version_folders import version_folders
from text.runtime.bundle import REBUILD, parse_manifest
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

        As of models, one that is still being copied or is dated in the future is passed over.
        NotYet names it where there is no other, or lists those that there are. Blocks.
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
        fitting.sort(key=lambda one: (one.manifest.created, one.manifest.version), reverse=True)
        waiting = list[str]()
        for one in fitting:
            why = self._not_now(one)
            if why is None:
                return one
            waiting.append(why)
        if waiting:
            raise NotYet(waiting[0])
        if not found:
            nothing = f"{self.path}: holds no encoder bundle (QIN_ENCODER); {self._build}"
            raise NotYet(faults[0] if faults else nothing)
        there = ", ".join(
            f"{one.manifest.version} ({one.content or 'no map'})"
            for one in sorted(found, key=lambda one: one.manifest.version)
        )
        raise NotYet(
            f"{self.path}: no encoder makes contents of digest {content}; there are: {there}; put "
            "the encoder that the model was trained with beside them"
        )

    def _not_now(self, found: FoundEncoder) -> str | None:
        """Return why a bundle cannot be served now; None if it can. A single one has any date."""
        folder, manifest = found.folder, found.manifest
        different = not_whole(folder, manifest.files)
        if different is not None:
            return f"{different}; {REBUILD}"
        ahead = None if self.single else in_future(manifest.created)
        return None if ahead is None else f"{folder}: {ahead}"

    def _folders(self) -> list[Path]:
        if self.single:
            return [self.path.resolve()]
        try:
            return version_folders(self.path, MOST_VERSIONS)
        except (FileNotFoundError, NotADirectoryError):
            raise NotYet(f"{self.path}: not found (QIN_ENCODER); {self._build}") from None
        except BundleError as error:
            raise NotYet(str(error)) from error
