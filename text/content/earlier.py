"""Reads contents again from the table that an earlier run wrote, by digests of their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.parquet.columns import DataFileError
from text.content.items import DIGEST_BYTES

Content = NDArray[np.float32]


def source_column(feature: str) -> str:
    """Column of the digest of what a row's content was made of."""
    return f"{feature}_source"


class EarlierTable:
    """A table's contents; in memory are 24 bytes a row and one group of rows at a time."""

    def __init__(self, path: Path | None, feature: str, size: int) -> None:
        """Read the digests. Raises DataFileError for a file that is not such a table."""
        self._path, self._feature, self._size = path, feature, size
        self._digests = np.zeros(0, f"S{DIGEST_BYTES}")
        self._rows = np.zeros(0, np.int64)
        if path is None:
            return
        column = source_column(feature)
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            if not {column, feature} <= set(self._file.schema_arrow.names):
                raise DataFileError(
                    f"{path}: exists, and is no table of `text embed` with {feature}; "
                    "give another --out"
                )
            digests = self._file.read([column])[column].combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(
                f"{path}: exists, and cannot be read: {str(error).rstrip('.')}; delete it or give "
                "another --out"
            ) from error
        try:
            values = digests.cast(pa.binary(DIGEST_BYTES)).fill_null(bytes(DIGEST_BYTES))
        except pa.ArrowException as error:
            raise self._changed(column, "holds no digests") from error
        at = values.offset * DIGEST_BYTES
        raw = np.frombuffer(values.buffers()[1], self._digests.dtype, len(values), at)
        known = np.flatnonzero(digests.is_valid().to_numpy(zero_copy_only=False))
        order = np.argsort(raw[known], kind="stable")
        self._digests, self._rows = raw[known][order], known[order]
        sizes = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        self._starts = np.cumsum([0, *sizes])

    def contents(self, digests: list[bytes]) -> dict[int, Content]:
        """Return the contents (C,) of those that the table has, by place in the list."""
        wanted = np.array(digests, self._digests.dtype)
        at = np.searchsorted(self._digests, wanted)
        found = at < len(self._digests)
        found[found] = self._digests[at[found]] == wanted[found]
        places = np.flatnonzero(found)
        rows = self._rows[at[places]]
        contents: dict[int, Content] = {}
        groups = np.searchsorted(self._starts, rows, "right") - 1 if len(rows) else rows
        for group in np.unique(groups).tolist():
            values = self._group(group)
            for place, row in zip(places[groups == group], rows[groups == group], strict=True):
                contents[int(place)] = values[row - self._starts[group]]
        return contents

    def _group(self, group: int) -> Content:
        """(rows, C)"""
        try:
            read = self._file.read_row_group(group, [self._feature])
            column = read[self._feature].combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(
                f"{self._path}: column {self._feature}: damaged: {error}; delete the file or give "
                "another --out"
            ) from error
        try:
            values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
            whole: Content = values.reshape(len(column), self._size)
        except (AttributeError, TypeError, ValueError) as error:
            raise self._changed(self._feature, f"holds no lists of {self._size} numbers") from error
        if not np.isfinite(whole).all():
            raise self._changed(self._feature, "holds values that are no finite float32")
        return whole

    def _changed(self, column: str, fault: str) -> DataFileError:
        return DataFileError(
            f"{self._path}: column {column} {fault}: it was changed after `text embed` "
            "wrote it; delete the file or give another --out"
        )
