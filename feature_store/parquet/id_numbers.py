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
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.contract import MAX_ID, Ids
from feature_store.parquet.columns import DataFileError

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
    """The id columns of some parquet files, mapped by one method."""

    def __init__(self, files: Sequence[Path], columns: Sequence[str], method: Method) -> None:
        self._columns, self._method = columns, method
        self._files = [(path, _opened(path)) for path in files]
        found = {name for _, file in self._files for name in file.schema_arrow.names}
        for name in columns:
            if name not in found:
                raise DataFileError(f"{files[0]}: no given file has a column {name!r}")
        self.rows: int = sum(file.metadata.num_rows for _, file in self._files)

    def report(self) -> IdReport:
        """Read all ids and count. DataFileError."""
        parts = [pa.array([], self._key_type)]
        for path, file in self._files:
            names = self._present(file)
            for batch in _batches(path, file, names):
                for name in names:
                    keys = self._keys(_elements(batch.column(name)), f"{path}: column {name}")
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
        """Write a copy of each file, its id columns mapped to int64. DataFileError if it exists."""
        folder.mkdir(parents=True, exist_ok=True)
        targets = [folder / path.name for path, _ in self._files]
        if len(set(targets)) < len(targets):
            raise DataFileError(f"{folder}: two of the files have the same name; write them apart")
        for target in targets:
            if target.exists():
                raise DataFileError(f"{target}: exists; choose another folder")
        for target, (path, file) in zip(targets, self._files, strict=True):
            self._copy(path, file, target)
        return targets

    def _copy(self, path: Path, file: pq.ParquetFile, target: Path) -> None:
        mapped, schema = self._present(file), file.schema_arrow
        for name in mapped:
            at = schema.get_field_index(name)
            kind = pa.list_(pa.int64()) if _is_list(schema.field(at).type) else pa.int64()
            schema = schema.set(at, pa.field(name, kind))
        with pq.ParquetWriter(target, schema.remove_metadata()) as writer:
            for batch in _batches(path, file, schema.names):
                columns = [
                    self._mapped(batch.column(n), f"{path}: column {n}")
                    if n in mapped
                    else batch.column(n)
                    for n in schema.names
                ]
                writer.write_batch(
                    pa.RecordBatch.from_arrays(columns, schema=schema.remove_metadata())
                )

    def _mapped(self, array: pa.Array, source: str) -> pa.Array:
        keys = self._keys(_elements(array), source)
        encoded = keys.dictionary_encode()
        numbers = pa.array(self._numbers(encoded.dictionary)).take(encoded.indices)
        if not _is_list(array.type):
            return numbers
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, numbers, mask=array.is_null())

    def _present(self, file: pq.ParquetFile) -> list[str]:
        return [name for name in self._columns if name in file.schema_arrow.names]

    @property
    def _key_type(self) -> pa.DataType:
        return pa.uint64() if self._method == "mask" else pa.large_string()

    def _keys(self, array: pa.Array, source: str) -> pa.Array:
        """(E,) ids in the form that the method takes: the bits of integers, or texts."""
        kind, types = array.type, pa.types
        if types.is_dictionary(kind):
            return self._keys(array.dictionary_decode(), source)
        if types.is_integer(kind):
            if self._method == "sha256":
                return array.cast(pa.large_string())
            return array if types.is_uint64(kind) else _bits(array)
        if types.is_string(kind) or types.is_large_string(kind):
            if self._method == "mask":
                raise DataFileError(f"{source}: holds {kind}, not integers; use --method sha256")
            return array.cast(pa.large_string())
        if isinstance(kind, pa.UuidType) and self._method == "sha256":
            return pa.array([_uuid(v) for v in array.storage.to_pylist()], pa.large_string())
        raise DataFileError(f"{source}: holds {kind}, not ids of method {self._method}")

    def _numbers(self, keys: pa.Array) -> Ids:
        if self._method == "mask":
            bits = keys.to_numpy(zero_copy_only=False).astype(np.uint64)
            masked: Ids = (bits & np.uint64(MAX_ID)).astype(np.int64)
            return masked
        return np.array([hashed(text) for text in keys.to_pylist()], np.int64)

    def _outside(self, keys: pa.Array) -> int:
        if self._method == "mask":
            return int(np.count_nonzero(keys.to_numpy(zero_copy_only=False) > MAX_ID))
        return sum(not (_is_number(text) and int(text) <= MAX_ID) for text in keys.to_pylist())

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


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataFileError(f"{path}: not a readable parquet file: {error}") from error


def _batches(path: Path, file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(BATCH_ROWS, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataFileError(f"{path}: damaged: {error}") from error


def _bits(array: pa.Array) -> pa.Array:
    """Signed integers as the unsigned ones of the same 64 bits."""
    return array.cast(pa.int64()).view(pa.uint64())


def _elements(array: pa.Array) -> pa.Array:
    return array.flatten() if _is_list(array.type) else array


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _repeated(numbers: Ids) -> Ids:
    values, counts = np.unique(numbers, return_counts=True)
    found: Ids = values[counts > 1]
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _uuid(value: bytes | None) -> str | None:
    return None if value is None else str(UUID(bytes=value))
