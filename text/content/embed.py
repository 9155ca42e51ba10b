"""Embeds a table of items: its rows with their content, of which only changed ones are encoded.

Pieces of rows are written one by one to ``.NAME.run`` beside the table, and joined at the end. A
run that is killed goes on after its last whole piece, with the same bytes in the end, since the
texts of a piece are encoded together in each run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.contents import Origin
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.content_digests import digest_column
from feature_store.parquet.load import identity
from feature_store.parquet.whole_file import whole_file
from model_export.bundle.errors import BundleError
from text.content.earlier import EarlierTable, source_column
from text.content.items import DIGEST_BYTES, EncodedItems, ItemBatch, ItemTexts, encode
from text.content.pieces import Pieces
from text.runtime.content import TEXT, ContentMap
from text.runtime.encoder import TextEncoder

PIECE = 2048  # rows
JOINED = 16  # pieces to a row group of the table
Content = NDArray[np.float32]
Writing = Callable[[Path], AbstractContextManager[None]]


def nothing(path: Path) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(slots=True)
class EmbedReport:
    """Counts of a run, over the rows of all its processes."""

    items: int = 0
    encoded: int = 0  # rows whose texts or vectors, encoder or map are new
    unchanged: int = 0  # rows with the content of the earlier table
    without: int = 0  # rows without text and given vector: no content
    truncated: int = 0  # texts cut at the encoder's longest length


class Embedding:
    """One run over ``items``, into the parquet file ``out``."""

    def __init__(self, encoder: TextEncoder, path: Path, out: Path, texts: list[str]) -> None:
        """Open the items and the earlier table. Raises BundleError or DataFileError."""
        if encoder.content_map is None or encoder.content_digest is None:
            raise BundleError(
                f"{encoder.bundle.path}: has no map to content; build it with "
                "`python -m text build CHECKPOINT --content MAP`"
            )
        if out.exists() and out.samefile(path):
            raise DataFileError(f"{out}: the items themselves; give another --out")
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            # The next run would read it as a part of the items.
            raise DataFileError(
                f"{out}: within {path}, the folder of the items; give another --out"
            )
        self.encoder, self.out = encoder, out
        self.map, self.digest = encoder.content_map, encoder.content_digest
        about = self.map.about
        self.feature = about.feature
        given = [name for name in about.inputs if name != TEXT]
        has = ItemTexts(path, texts, ()).parts.columns
        self.items = ItemTexts(path, texts, [name for name in given if name in has])
        self.missing = [name for name in given if name not in has]
        self.items.expect(about.inputs)
        ours = {self.feature, digest_column(self.feature), source_column(self.feature)}
        self._carried = {n: self._kind(n) for n in self.items.parts.columns if n not in ours}
        self._earlier_path = out if out.exists() else None
        self._earlier = EarlierTable(self._earlier_path, self.feature, about.size)
        self._folder = out.with_name(f".{out.name}.run")

    def _kind(self, column: str) -> pa.DataType:
        """Return the type of a carried column that has the values of every part's."""
        first, *others = self.items.parts.tables
        found = first.kind(column)
        for table in others:
            kinds = [pa.schema({column: kind}) for kind in (found, table.kind(column))]
            try:
                found = pa.unify_schemas(kinds, promote_options="permissive").field(0).type
            except pa.ArrowException as error:
                raise DataFileError(
                    f"{table.path}: column {column} is {table.kind(column)}, and {found} in "
                    f"{first.path}; write it alike in every part"
                ) from error
        return found

    @property
    def origin(self) -> Origin:
        """The encoder and map of these contents, as stores keep it."""
        return Origin(self.feature, self.digest)

    def run(
        self, advance: Callable[[int], None] = lambda rows: None, writing: Writing = nothing
    ) -> EmbedReport:
        """Embed every row, or those after the last whole piece of a killed run.

        ``writing`` is entered where files are written, and nowhere else.
        """
        pieces, mark = Pieces(self._folder), self._mark()
        with writing(self.out):
            report = EmbedReport(**pieces.resume(mark))
        advance(report.items)
        for batch in self.items.batches(PIECE, report.items, list(self._carried)):
            table = self._embedded(batch, report)
            with writing(self.out):
                pieces.add(table, asdict(report))
            advance(report.items)
        self._join(pieces, writing)
        pieces.delete()
        return report

    def _mark(self) -> bytes:
        """Digest what the pieces follow from."""
        files = [self.items.path, *([self._earlier_path] if self._earlier_path else [])]
        options = [self.digest, self.feature, PIECE, *self._carried, "", *self.items.texts]
        return identity(files, " ".join(map(str, options))).encode()

    def _embedded(self, batch: ItemBatch, report: EmbedReport) -> pa.Table:
        """Return a piece: the rows with their content."""
        digests = batch.digests(self.digest)
        contents = self._earlier.contents(digests)
        report.unchanged += len(contents)
        new = [row for row in np.flatnonzero(batch.have_any).tolist() if row not in contents]
        if new:
            encoded = encode(self.encoder, batch.take(new))
            found = contents_of(self.map, encoded)
            contents |= {row: found[at] for at, row in enumerate(new) if at in found}
            report.encoded += len(found)
            report.truncated += encoded.truncated
        report.items += len(batch)
        report.without += len(batch) - len(contents)
        values = np.zeros((len(batch), self.map.about.size), np.float32)
        for row, content in contents.items():
            values[row] = content
        have = [row in contents for row in range(len(batch))]
        sources = [digest if has else None for digest, has in zip(digests, have, strict=True)]
        return pa.table(
            {
                **{name: self._cast(batch, name) for name in self._carried},
                self.feature: pa.FixedSizeListArray.from_arrays(
                    pa.array(values.reshape(-1)), values.shape[1]
                ),
                digest_column(self.feature): pa.array(
                    [self.digest if has else None for has in have], pa.string()
                ),
                source_column(self.feature): pa.array(sources, pa.binary(DIGEST_BYTES)),
            }
        )

    def _cast(self, batch: ItemBatch, column: str) -> pa.Array:
        """Return a carried column in the type of all parts, which the values must fit."""
        try:
            return batch.carried[column].cast(self._carried[column])
        except pa.ArrowException as error:
            raise DataFileError(
                f"{self.items.parts}: column {column}, rows from {batch.start:,}: {error}; "
                "write it alike in every part"
            ) from error

    def _join(self, pieces: Pieces, writing: Writing) -> None:
        """Write the table, a group of rows of every few pieces."""
        if not len(pieces):
            raise DataFileError(f"{self.items.parts}: no rows")
        schema = pieces.schema()
        with writing(self.out), whole_file(self.out, schema) as writer:
            for joined in pieces.tables(schema, JOINED):
                writer.write_table(joined, row_group_size=len(joined))


def contents_of(content_map: ContentMap, encoded: EncodedItems) -> dict[int, Content]:
    """Return the content (C,) of each item that has one, by its place."""
    names = list(content_map.about.inputs)
    has = np.stack([encoded.has.get(name, np.zeros(len(encoded), bool)) for name in names], axis=1)
    found: dict[int, Content] = {}
    for pattern in np.unique(has, axis=0):
        rows = np.flatnonzero((has == pattern).all(1))
        own = [name for name, one in zip(names, pattern, strict=True) if one]
        combination = content_map.fitting(own)
        if combination is None:
            continue
        if combination == (TEXT,) and encoded.content is not None:
            values = encoded.content[rows]
        else:
            values = content_map.content({n: encoded.vectors[n][rows] for n in combination})
        found |= dict(zip(rows.tolist(), values.astype(np.float32), strict=True))
    return found
