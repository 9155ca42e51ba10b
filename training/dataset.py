"""Opens a data folder: the item catalogue, and the rows for training and validation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from feature_store.schema import FeatureSchema
from training.catalogue import Catalogue
from training.progress import OnProgress, no_progress
from training.reader import ReaderError, read_rows
from training.rows import Rows

__all__ = ["Data", "ReaderError", "Rows", "open_data", "open_held_out"]
logger = logging.getLogger("training")


@dataclass(frozen=True)
class Data:
    items: Catalogue
    train: Rows
    valid: Rows


def open_data(
    folder: Path,
    schema: FeatureSchema,
    on_progress: OnProgress = no_progress,
    cache: Path | None = None,
) -> Data:
    """Read ``item_info``, ``item_feature`` (if present), ``train`` and ``valid``.

    The rows are cached in ``cache``, by default ``.cache`` in the folder. Raises ReaderError.
    """
    items = _catalogue(folder, schema)
    train, valid = (
        _labelled(folder, name, items, on_progress, cache) for name in ("train", "valid")
    )
    return Data(items, train, valid)


def open_held_out(
    folder: Path,
    schema: FeatureSchema,
    on_progress: OnProgress = no_progress,
    cache: Path | None = None,
) -> tuple[Rows, Rows | None]:
    """Read ``valid``, and ``train`` where the folder has it. See ``open_data``."""
    items = _catalogue(folder, schema)
    valid = _labelled(folder, "valid", items, on_progress, cache)
    if not _file(folder, "train").exists():
        return valid, None
    return valid, _labelled(folder, "train", items, on_progress, cache)


def _catalogue(folder: Path, schema: FeatureSchema) -> Catalogue:
    info, more = folder / "item_info.parquet", folder / "item_feature.parquet"
    return Catalogue.read([info, more] if more.exists() else [info], schema)


def _labelled(
    folder: Path, name: str, items: Catalogue, on_progress: OnProgress, cache: Path | None
) -> Rows:
    file = _file(folder, name)
    rows = read_rows(file, items, cache or folder / ".cache", on_progress)
    if not rows.labelled:
        raise ReaderError(f"{file}: has no column 'label'")
    if rows.label.min() == rows.label.max():
        logger.warning(
            "warning: %s: column label: %g in every row; ranking needs clicks and non-clicks",
            file,
            rows.label[0],
        )
    return rows


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"
