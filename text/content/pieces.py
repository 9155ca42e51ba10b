"""Keeps the pieces of a run in a folder: tables of rows, each with the counts up to its end.

The name of a piece has its place and its SHA-256, so that a piece that is damaged, lost or in
another's place is noticed, and made again with those after it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.whole_file import whole_file
from feature_store.wording import worded

STATE = "state"  # file of what the pieces are of; counts in a piece
Counts = dict[str, int]


class Pieces:
    """The pieces of a run, in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []

    def __len__(self) -> int:
        return len(self._files)

    def resume(self, mark: bytes) -> Counts:
        """Take the pieces of a killed run of the same mark, up to the first that is not whole, and
        return the counts up to there; of another run, begin without pieces and counts."""
        state = self._folder / STATE
        try:
            if state.read_bytes() == mark:
                self._files = list(self._whole())
                return self._counts() if self._files else {}
        except FileNotFoundError:
            pass
        self.delete()
        self._folder.mkdir(parents=True)
        state.with_suffix(".new").write_bytes(mark)
        state.with_suffix(".new").replace(state)
        return {}

    def add(self, table: pa.Table, counts: Mapping[str, int]) -> None:
        """Write the next piece, complete or not at all."""
        table = table.replace_schema_metadata({STATE: orjson.dumps(dict(counts)).decode()})
        new = self._folder / "piece.new"
        with whole_file(new, table.schema) as writer:
            writer.write_table(table)
        self._files.append(new.replace(self._named(len(self), new)))

    def schema(self) -> pa.Schema:
        """Return the columns of all pieces."""
        return pa.unify_schemas([pq.read_schema(file).remove_metadata() for file in self._files])

    def tables(self, schema: pa.Schema, together: int) -> Iterator[pa.Table]:
        """Yield the rows of so many pieces at a time."""
        for start in range(0, len(self), together):
            tables = [self._read(file) for file in self._files[start : start + together]]
            yield pa.concat_tables([t.replace_schema_metadata().cast(schema) for t in tables])

    def delete(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _whole(self) -> Iterator[Path]:
        """Yield the pieces that are there and as they were written, up to the first other."""
        place = 0
        while files := list(self._folder.glob(f"piece-{place:06}-*")):
            if len(files) > 1 or files[0] != self._named(place, files[0]):
                return
            yield files[0]
            place += 1

    def _named(self, place: int, file: Path) -> Path:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return self._folder / f"piece-{place:06}-{digest}.parquet"

    def _counts(self) -> Counts:
        metadata = pq.read_schema(self._files[-1]).metadata
        counts: Counts = orjson.loads(metadata[STATE.encode()])
        return counts

    def _read(self, file: Path) -> pa.Table:
        try:
            return pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(
                f"{file}: cannot be read: {worded(error)}; the same command makes it again"
            ) from error
