"""Keeps the arrays of row files: a folder per file, schema, catalogue and format."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from feature_store.parquet.table import files_of
from feature_store.schema import Stored
from training.data.catalogue import Catalogue

FORMAT = 2  # of the arrays


def new_array(
    path: Path, kind: type[np.generic] | np.dtype[np.void], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Map a new file; its blocks exist, since a write without one kills the process (SIGBUS)."""
    array: NDArray[Any] = open_memmap(path, mode="w+", dtype=kind, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def cache_name(path: Path, items: Catalogue, user_columns: Sequence[Stored]) -> str:
    """Name the cache folder: FILE-SOURCE-MEANING (schema, columns, catalogue and format)."""
    facts = [str(path.resolve())]
    for file in files_of(path):
        found = file.stat()
        facts += [] if file == path else [str(file.relative_to(path))]
        facts += [str(found.st_size), str(found.st_mtime_ns)]
    source = _short(*facts)
    columns = [f.name for f in user_columns]
    meaning = _short(str(FORMAT), items.schema.model_dump_json(), *columns, items.digest)
    return f"{path.stem}-{source}-{meaning}"


def _short(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def remove_stale(folder: Path) -> None:
    """Remove folders of earlier contents of the same file."""
    stem, source, _ = folder.name.rsplit("-", 2)
    for other in folder.parent.glob(f"{stem}-{'?' * 16}-{'?' * 16}"):
        if other.name.rsplit("-", 2)[1] != source:
            shutil.rmtree(other, ignore_errors=True)


def publish(partial: Path, folder: Path) -> None:
    partial.chmod(0o755)
    try:
        os.rename(partial, folder)
    except OSError:
        if not folder.exists():  # else another process published the same content
            raise
