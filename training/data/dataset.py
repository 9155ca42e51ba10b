"""Opens a data folder: the item catalogue, and the rows for training and validation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from feature_store.parquet.parts import ParquetParts
from feature_store.parquet.table import tables_of
from feature_store.schema import Categorical, Dense, FeatureSchema, Numeric
from training.data.catalogue import Catalogue
from training.data.reader import ReaderError, read_rows
from training.data.rows import Rows
from training.data.user_ids import check_agreement
from training.data.users import UserTable
from training.progress import OnProgress, no_progress

__all__ = ["Data", "ReaderError", "Rows", "open_data", "open_held_out"]
logger = logging.getLogger("training")
LARGEST_MEAN_SQUARE = 100.0  # of a column of a dense feature, beyond which a warning names it


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
    users: Path | None = None,
    min_count: int = 1,
) -> Data:
    """Read ``item_info``, ``item_feature``, ``user_info`` (if present), ``train`` and ``valid``.

    The rows are cached in ``cache``, by default ``.cache`` in the folder. ``users`` is another
    users file. In the training rows, users of fewer than ``min_count`` rows are unknown; the
    index of each user is found from the training rows where no column has it. Raises ReaderError.
    """
    items = catalogue(folder, schema)
    tables = user_tables(folder, schema, users)
    identity = _identity(schema)
    unassigned = identity is not None and not (
        any(identity in table.features for table in tables)
        or identity.name in ParquetParts.read(_file(folder, "train")).columns
    )
    if identity and unassigned:
        tables.append(UserTable.unassigned(identity))
    train = _labelled(folder, "train", items, on_progress, cache, tables)
    if identity and train.users and unassigned:
        found = UserTable.assign(identity, train.users, min_count, train.user_texts)
        tables[-1] = found.with_users_of(tables[:-1])
        train = replace(train, users=train.users.with_index(identity, tables[-1]))
    elif identity and train.users and min_count > 1:
        train = replace(train, users=train.users.without_rare(identity, min_count))
    if identity and train.users and min_count > 1:
        index = train.users.tensors[identity.name]
        if not bool(index.any()):
            logger.warning(
                "warning: user_min_count %d: no user has as many training rows: all are unknown",
                min_count,
            )
    _warn_of_magnitudes(folder, train, tables)
    _warn_of_constants(_file(folder, "train"), train)
    valid = _labelled(folder, "valid", items, on_progress, cache, tables)
    _check_users(folder, train, valid)
    return Data(items, train, valid)


def open_held_out(
    folder: Path,
    schema: FeatureSchema,
    on_progress: OnProgress = no_progress,
    cache: Path | None = None,
    users: Path | None = None,
    index: Path | None = None,
) -> tuple[Rows, Rows | None]:
    """Read ``valid``, and ``train`` where the folder has it. See ``open_data``.

    ``index`` is a further users file, for features that the first lacks; it may be absent.
    """
    items = catalogue(folder, schema)
    tables = user_tables(folder, schema, users, index)
    valid = _labelled(folder, "valid", items, on_progress, cache, tables)
    if not _file(folder, "train").exists():
        return valid, None
    train = _labelled(folder, "train", items, on_progress, cache, tables)
    _check_users(folder, train, valid)
    return valid, train


def _check_users(folder: Path, train: Rows, valid: Rows) -> None:
    sources = [str(_file(folder, name)) for name in ("train", "valid")]
    check_agreement(sources[0], train.user_texts, sources[1], valid.user_texts)


def user_tables(
    folder: Path, schema: FeatureSchema, users: Path | None = None, index: Path | None = None
) -> list[UserTable]:
    """Read the users file, named or ``user_info.parquet`` of the folder, and the indices."""
    if not schema.user:
        return []
    found = users or (folder / "user_info.parquet")
    tables = [UserTable.read(found, schema)] if users or found.exists() else []
    if index is not None and index.exists():
        given = {f.name for table in tables for f in table.features}
        tables.append(UserTable.read(index, schema, given))
    return tables


def _identity(schema: FeatureSchema) -> Categorical | None:
    for feature in schema.user:
        if isinstance(feature, Categorical) and feature.name == schema.user_identity:
            return feature
    return None


def catalogue(folder: Path, schema: FeatureSchema) -> Catalogue:
    """Read the items of a data folder."""
    info, more = folder / "item_info.parquet", folder / "item_feature.parquet"
    return Catalogue.read([info, more] if more.exists() else [info], schema)


def _labelled(
    folder: Path,
    name: str,
    items: Catalogue,
    on_progress: OnProgress,
    cache: Path | None,
    tables: Sequence[UserTable],
) -> Rows:
    file = _file(folder, name)
    rows = read_rows(file, items, cache or folder / ".cache", on_progress, tables)
    if not rows.labelled:
        raise ReaderError(f"{file}: has no column 'label'")
    if rows.label.min() == rows.label.max():
        logger.warning(
            "warning: %s: column label: %g in every row; ranking needs clicks and non-clicks",
            file,
            rows.label[0],
        )
    return rows


def _warn_of_magnitudes(folder: Path, train: Rows, tables: Sequence[UserTable]) -> None:
    """Name the dense features that a network is badly trained on unless they are scaled.

    All items of the catalogue count, and the users of the training rows. A column's mean square
    is mean² + deviation².
    """
    for feature in train.schema.item:
        if isinstance(feature, Dense):
            file = _file(folder, "item_info")
            if feature.name not in tables_of(file)[0].columns:
                file = _file(folder, "item_feature")
            _warn_of_magnitude(feature, train.items.tensors[feature.name], str(file))
    sources = {f.name: table.source for table in tables for f in table.features}
    for feature in train.schema.user:
        if isinstance(feature, Dense) and train.users:
            source = sources.get(feature.name, str(_file(folder, "train")))
            _warn_of_magnitude(feature, train.users.tensors[feature.name], source)


def _warn_of_magnitude(feature: Dense, values: Tensor, source: str) -> None:
    columns = values[1:].numpy()  # the first is padding, or the unknown user
    squares = np.einsum("ij,ij->j", columns, columns, dtype=np.float64) / max(1, len(columns))
    if (largest := squares.max()) > LARGEST_MEAN_SQUARE:
        logger.warning(
            "warning: %s: column %s: values of about %s (root mean square); dense features are "
            "not scaled: divide them, in the store's files too",
            source,
            feature.name,
            f"{largest**0.5:,.0f}",
        )


def _warn_of_constants(file: Path, train: Rows) -> None:
    """Name the numeric request features that vary in no row: their weights are not trained."""
    for feature in train.schema.request:
        if isinstance(feature, Numeric) and train.request is not None:
            values = train.request[feature.name]
            values = values[~np.isnan(values)]
            if len(values) and values.min() < values.max():
                continue
            logger.warning(
                "warning: %s: column %s: %s; nothing is learned of it, and other values would "
                "change scores at random: leave it out of the schema",
                file,
                feature.name,
                f"{values[0]:g} in every row that has it"
                if len(values)
                else "missing in every row",
            )


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"
