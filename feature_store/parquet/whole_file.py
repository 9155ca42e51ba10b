"""Writes parquet files so that each is complete or absent, or several that belong together are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq


class WholeFiles:
    """Files that get their names when all of them are written; a link stays one."""

    def __init__(self) -> None:
        self._partial: dict[Path, Path] = {}

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def writer(self, path: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """Yield a writer of ``path``."""
        partial = self._partial_of(path)
        with pq.ParquetWriter(partial, columns, write_page_checksum=True) as writer:
            yield writer

    def put(self, path: Path, data: bytes) -> None:
        """Write another file beside them."""
        self._partial_of(path).write_bytes(data)

    def finish(self) -> None:
        """Give all their names, in place of earlier files."""
        for partial, path in self._partial.items():
            partial.replace(path)

    def __exit__(self, *_: object) -> None:
        for partial in self._partial:
            partial.unlink(missing_ok=True)

    def _partial_of(self, path: Path) -> Path:
        path = path.resolve()
        partial = path.with_name(path.name + ".partial")
        self._partial[partial] = path
        return partial


@contextmanager
def whole_file(path: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of ``path``, whose file gets its name when all of it is written."""
    with WholeFiles() as files:
        with files.writer(path, columns) as writer:
            yield writer
        files.finish()
