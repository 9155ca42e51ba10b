"""Opens a data folder: the item catalogue, and the rows for training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_store.schema import FeatureSchema
from training.catalogue import Catalogue
from training.progress import OnProgress, no_progress
from training.reader import ReaderError, read_rows
from training.rows import Rows

__all__ = ["Data", "ReaderError", "Rows", "open_data"]


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
    info, more = folder / "item_info.parquet", folder / "item_feature.parquet"
    items = Catalogue.read([info, more] if more.exists() else [info], schema)
    train, valid = (
        read_rows(folder / f"{name}.parquet", items, cache or folder / ".cache", on_progress)
        for name in ("train", "valid")
    )
    for name, rows in (("train", train), ("valid", valid)):
        if not rows.labelled:
            raise ReaderError(f"{folder / name}.parquet: has no column 'label'")
    return Data(items, train, valid)
