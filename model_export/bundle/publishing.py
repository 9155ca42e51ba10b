"""Publishes folders atomically: written under a temporary name, forced to disk, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import orjson
from pydantic import BaseModel

from feature_store.temporary_folders import temporary_folder
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MANIFEST


@contextmanager
def staging_folder(models: Path, version: str) -> Iterator[Path]:
    """Create a folder to write ``models/VERSION`` into; removed at the end unless published.

    Raises BundleError, also for an error of the system while it is written, as on a full disk.
    """
    _refuse_existing(models, version)
    with ExitStack() as made:
        try:
            models.mkdir(parents=True, exist_ok=True)
            folder = made.enter_context(temporary_folder(models, version))
        except OSError as error:
            why = f"cannot be created: {error.strerror}"
            raise BundleError(f"{models / version}: {why}") from error
        try:
            yield folder
        except OSError as error:
            if not _is_of(folder, error):
                raise
            why = f"cannot be written: {error.strerror}"
            raise BundleError(f"{models / version}: {why}") from error


def _is_of(folder: Path, error: OSError) -> bool:
    """Tell whether an error of the system is of writing the folder: a full disk's names no file."""
    if error.strerror is None:
        return False
    return error.filename is None or Path(str(error.filename)).is_relative_to(folder)


def publish(folder: Path, version: str, manifest: BaseModel) -> Path:
    """Write the manifest, fsync everything, rename the folder to its version; return its path."""
    (folder / MANIFEST).write_bytes(
        orjson.dumps(manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"
    )
    for path in (*folder.iterdir(), folder):
        _force_to_disk(path)
    models = folder.parent
    _refuse_existing(models, version)
    final = models / version
    try:
        folder.rename(final)
    except OSError as error:
        raise BundleError(f"{final}: cannot be published: {error.strerror}") from error
    _force_to_disk(models)
    return final


def _refuse_existing(models: Path, version: str) -> None:
    if (models / version).exists():
        raise BundleError(
            f"{models / version}: exists, and a version is immutable; give another --version"
        )


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
