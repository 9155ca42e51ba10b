"""Maps ids of other systems to the store's, 0 … 2⁶³−1, and counts those that collide.

``mask`` clears the sign bit of a 64-bit integer: ids that are the store's already stay as they are.
``sha256`` takes the first 8 bytes of SHA-256 over an id's text, big-endian, and clears their sign
bit. Both are one line in any language, so a client makes the same number of an id. 0 and an empty
string are 0, the padding of histories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.contract import MAX_ID, Ids
from feature_store.parquet.arrays import flattened, is_list, is_number, plain
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.table import ParquetTable, tables_of
from feature_store.parquet.texts import texts
from feature_store.parquet.whole_file import whole_file

Method = Literal["mask", "sha256"]
BATCH_ROWS = 65_536
PADDING = (0, "0", "")
SHOWN = 5  # collisions in the report


@dataclass(slots=True)
class IdReport:
    """Counts over all given columns, whose ids are of one kind."""

    ids: int = 0  # distinct ones
    outside: int = 0  # of which so many are not in 0 … 2⁶³−1 as they are
    collisions: int = 0  # distinct ids, less the distinct numbers that they become
    padding: int = 0  # ids other than 0 and "" that become 0
    examples: list[str] = field(default_factory=list)  # of collisions

    def as_json(self) -> dict[str, int | list[str]]:
        return asdict(self)


class IdNumbers:
    """The id columns of parquet files, or folders of parts, mapped by one method."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str], method: Method) -> None:
        self._columns, self._method = columns, method
        self._sources = [(path, tables_of(path)) for path in paths]
        found = {name for _, table in self._tables() for name in table.columns}
        for name in columns:
            if name not in found:
                raise DataFileError(f"{paths[0]}: no given file has a column {name!r}")

    def _tables(self) -> Iterator[tuple[Path, ParquetTable]]:
        for path, tables in self._sources:
            yield from ((path, table) for table in tables)

    def report(self) -> IdReport:
        """Read all ids and count. DataFileError."""
        parts = [pa.array([], self._key_type)]
        for _, table in self._tables():
            names = self._present(table)
            for _, arrays in table.batches(names, BATCH_ROWS):
                for name, array in arrays.items():
                    keys, _ = self._keys(array, f"{table.path}: column {name}")
                    parts.append(pc.unique(keys.drop_null()))
            parts = [pc.unique(pa.chunked_array(parts))]
        keys = parts[0]
        numbers = self._numbers(keys)
        shared = _repeated(numbers)
        zeros = keys.filter(pa.array(numbers == 0)).to_pylist()
        report = IdReport(
            ids=len(keys),
            outside=self._outside(keys),
            collisions=len(keys) - len(np.unique(numbers)),
            padding=sum(key not in PADDING for key in zeros),
        )
        for number in shared[:SHOWN].tolist():
            these = keys.filter(pa.array(numbers == number)).to_pylist()[:SHOWN]
            report.examples.append(f"{', '.join(self._shown(key) for key in these)} → {number}")
        return report

    def write(self, folder: Path) -> list[Path]:
        """Write copies of the files, and of folders with their parts, id columns mapped to int64.

        DataFileError if a copy exists.
        """
        folder.mkdir(parents=True, exist_ok=True)
        targets = [folder / path.name for path, _ in self._sources]
        if len(set(targets)) < len(targets):
            raise DataFileError(f"{folder}: two of the files have the same name; write them apart")
        for target in targets:
            if target.exists():
                raise DataFileError(f"{target}: exists; choose another folder")
        for path, table in self._tables():
            target = folder / path.name / table.path.relative_to(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._copy(table, target)
        return targets

    def _copy(self, table: ParquetTable, target: Path) -> None:
        """Copy a file; its columns that are not ids keep their types."""
        mapped, schema = self._present(table), table.schema.remove_metadata()
        for name in mapped:
            at = schema.get_field_index(name)
            if at < 0:  # of a folder's name
                schema = schema.append(pa.field(name, pa.int64()))
                continue
            lists = is_list(plain(pa.nulls(0, schema.field(at).type)).type)
            schema = schema.set(at, pa.field(name, pa.list_(pa.int64()) if lists else pa.int64()))
        with whole_file(target, schema) as writer:
            for _, arrays in table.batches(schema.names, BATCH_ROWS, unwrap=False):
                for name in mapped:
                    source = f"{table.path}: column {name}"
                    arrays[name] = self._mapped(plain(arrays[name]), source)
                columns = [arrays[name] for name in schema.names]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    def _mapped(self, array: pa.Array, source: str) -> pa.Array:
        keys, lengths = self._keys(array, source)
        encoded = keys.dictionary_encode()
        numbers = pa.array(self._numbers(encoded.dictionary)).take(encoded.indices)
        if lengths is None:
            return numbers
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, numbers, mask=array.is_null())

    def _present(self, table: ParquetTable) -> list[str]:
        return [name for name in self._columns if name in table.columns]

    @property
    def _key_type(self) -> pa.DataType:
        return pa.uint64() if self._method == "mask" else pa.large_string()

    def _keys(self, array: pa.Array, source: str) -> tuple[pa.Array, NDArray[np.int64] | None]:
        """(E,) ids in the form that the method takes: the bits of integers, or texts.

        Then, if the column holds lists, their lengths.
        """
        elements, lengths = flattened(array) if is_list(array.type) else (array, None)
        kind = elements.type
        if self._method == "sha256":
            read = texts(elements)
            if read is None:
                raise DataFileError(f"{source}: holds {kind}, not ids of method sha256")
            for reason in read[1].values():
                raise DataFileError(f"{source}: {reason}")
            return read[0], lengths
        if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
            no_ids = is_number(kind) or texts(elements[:0]) is None
            hint = "" if no_ids else "; use --method sha256"
            raise DataFileError(f"{source}: holds {kind}, not integers{hint}")
        return (elements if pa.types.is_uint64(kind) else _bits(elements)), lengths

    def _numbers(self, keys: pa.Array) -> Ids:
        if self._method == "mask":
            bits = keys.to_numpy(zero_copy_only=False).astype(np.uint64)
            masked: Ids = (bits & np.uint64(MAX_ID)).astype(np.int64)
            return masked
        return np.array([hashed(text) for text in keys.to_pylist()], np.int64)

    def _outside(self, keys: pa.Array) -> int:
        if self._method == "mask":
            return int(np.count_nonzero(keys.to_numpy(zero_copy_only=False) > MAX_ID))
        return sum(not _is_id(text) for text in keys.to_pylist())

    def _shown(self, key: int | str) -> str:
        """An id above 2⁶³−1 is as likely a negative one: both are named."""
        if isinstance(key, int) and key > MAX_ID:
            return f"{key - 2**64} ({key} unsigned)"
        return str(key)


def hashed(text: str) -> int:
    """Return the number of an id's text by method ``sha256``."""
    if text in PADDING:
        return 0
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") & MAX_ID


def _bits(array: pa.Array) -> pa.Array:
    """Signed integers as the unsigned ones of the same 64 bits."""
    return array.cast(pa.int64()).view(pa.uint64())


def _repeated(numbers: Ids) -> Ids:
    values, counts = np.unique(numbers, return_counts=True)
    found: Ids = values[counts > 1]
    return found


def _is_id(text: str) -> bool:
    return (
        len(text) <= len(str(MAX_ID))
        and text.isascii()
        and text.isdecimal()
        and int(text) <= MAX_ID
    )
