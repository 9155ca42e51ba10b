"""Publishes folders atomically: written under a temporary name, forced to disk, renamed."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
from pydantic import BaseModel

from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MANIFEST

PARTIAL = re.compile(r"\..+\.([0-9a-f]{8}|[0-9]+)\.partial")
LEFT_S = 86_400.0  # longer than a build takes, where locks of other machines are not seen


@contextmanager
def staging_folder(models: Path, version: str) -> Iterator[Path]:
    """Create a folder to write ``models/VERSION`` into; removed at the end unless published.

    Removes those of processes that were killed, too. Raises BundleError, also for an error of the
    system while it is written, as on a full disk.
    """
    _refuse_existing(models, version)
    _remove_left(models)
    folder = models / f".{version}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir(parents=True)
        lock = _locked(folder)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be created: {error.strerror}") from error
    try:
        yield folder
    except OSError as error:
        if not _is_of(folder, error):
            raise
        raise BundleError(f"{models / version}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int:
    """Lock a folder while a process writes it, if the file system can; OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _remove_left(models: Path) -> None:
    """Remove folders that killed processes left: old ones that no process holds."""
    for folder in models.glob(".*.partial"):
        if not PARTIAL.fullmatch(folder.name):
            continue
        with suppress(OSError):  # no folder, another user's, held, or removed meanwhile
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(descriptor).st_mtime > LEFT_S:
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


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
