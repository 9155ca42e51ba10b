"""Writes random columns with pyarrow, polars and DuckDB, in many types and layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.parquet.columns import DataFileError


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of a writer, and the numbers or texts that it holds.

    ``taken``: the contract has it, of texts that of a mapped store.
    """

    type: Any
    most: int = 2**63 - 1
    taken: bool = True
    text: bool = False


def _kinds(of: Callable[[str], Any], names: str) -> list[Kind]:
    """Integers and floats named NAME:BITS."""
    found = []
    for name in names.split():
        label, _, bits = name.partition(":")
        found.append(Kind(of(label), 2 ** int(bits)))
    return found


NUMBERS: dict[str, list[Kind]] = {
    "pyarrow": [
        *_kinds(
            lambda name: getattr(pa, name)(),
            "int8:6 uint8:7 int16:14 uint16:15 int32:30 uint32:31 int64:62 uint64:62 "
            "float16:11 float32:24 float64:53",
        ),
        *(Kind(pa.decimal128(20, 0), 2**62), Kind(pa.decimal128(38, 4), 2**62)),
        *(Kind(pa.decimal256(60, 2), 2**62), Kind(pa.dictionary(pa.int32(), pa.int64()), 2**62)),
        *(Kind(pa.date32(), 2**20, taken=False), Kind(pa.timestamp("us"), 2**40, taken=False)),
    ],
    "polars": [
        *_kinds(
            lambda name: getattr(pl, name),
            "Int8:6 UInt8:7 Int16:14 UInt16:15 Int32:30 UInt32:31 Int64:62 UInt64:62 "
            "Float32:24 Float64:53",
        ),
        *(Kind(pl.Decimal(20, 0), 2**62), Kind(pl.Decimal(30, 3), 2**62)),
        Kind(pl.Date, 2**20, taken=False),
    ],
    "duckdb": [
        *_kinds(
            str,
            "TINYINT:6 UTINYINT:7 SMALLINT:14 USMALLINT:15 INTEGER:30 UINTEGER:31 BIGINT:62 "
            "UBIGINT:62 HUGEINT:53 FLOAT:24 DOUBLE:53",
        ),
        *(Kind("DECIMAL(18,0)", 2**59), Kind("DECIMAL(38,0)", 2**62)),
        Kind("DECIMAL(30,5)", 2**62),
    ],
}
TEXTS: dict[str, list[Kind]] = {
    writer: [Kind(of, text=True) for of in types]
    for writer, types in {
        "pyarrow": [
            *(pa.string(), pa.large_string(), pa.string_view()),
            *(pa.dictionary(pa.int32(), pa.string()), pa.uuid(), pa.binary(16)),
        ],
        "polars": [pl.String, pl.Categorical],
        "duckdb": ["VARCHAR", "UUID"],
    }.items()
}
LONG = "x" * 129  # no id
Columns = dict[str, tuple[list[Any], Any]]
WRITERS = tuple(NUMBERS)
LISTS = ("tags", "emb", "item_seq")  # columns of lists
LAYOUTS = ("file", "folder", "partitioned")


@dataclass(frozen=True, slots=True)
class Result:
    """``outcome``: equal, refused or wrong; ``what`` describes the table and a fault."""

    outcome: str
    what: str


def chosen(random: np.random.Generator, writer: str) -> Kind:
    """A kind of numbers; one outside of the contract in one column of fifty."""
    outside = random.random() < 0.02
    texts = [replace(kind, taken=False) for kind in TEXTS[writer]]
    fitting = [kind for kind in NUMBERS[writer] + texts if kind.taken is not outside]
    return fitting[int(random.integers(len(fitting)))]


def chosen_for_ids(random: np.random.Generator, writer: str, *, mapped: bool) -> Kind:
    """A kind of ids: in a mapped store mostly one of texts."""
    if mapped and random.random() < 0.7:
        return TEXTS[writer][int(random.integers(len(TEXTS[writer])))]
    kind = chosen(random, writer)
    return replace(kind, taken=True) if mapped and kind.text else kind


def is_uuid(kind: Kind) -> bool:
    return str(kind.type) in ("extension<arrow.uuid>", "fixed_size_binary[16]", "UUID")


def ids(random: np.random.Generator, kind: Kind, count: int) -> list[Any]:
    """Distinct ids that the kind holds, in any order: numbers, or texts."""
    if is_uuid(kind):
        return [str(UUID(bytes=random.bytes(16))) for _ in range(count)]
    drawn = {int(i) for i in random.integers(1, kind.most, 4 * count, dtype=np.int64)}
    drawn |= set(range(1, 1 + count))
    found = random.permutation(np.array(sorted(drawn)[-count:], np.int64)).tolist()
    if not (kind.text and kind.taken):
        return found
    shapes = ("{}", "{}/ä", " {} ", "Ä\n{}", "0{}")
    return [shapes[int(random.integers(len(shapes)))].format(number) for number in found]


def refusal(
    error: DataFileError, seed: int, folder: Path, columns: Columns, refused: list[str]
) -> str:
    """Judge a refusal: it has to name the file and a column that is refused, in one line."""
    line = str(error)
    named = any(f"column {name}: holds" in line for name in refused)
    named |= any(f"column {name}: cannot be read" in line for name in null_arrays(columns))
    fine = named and str(folder / f"t{seed}.parquet") in line and "\n" not in line
    return "refused" if fine else "wrong"


def write(seed: int, folder: Path, columns: Columns, random: np.random.Generator) -> Path:
    """Write the columns of a seed's writer in its layout; return the file or folder."""
    path = folder / f"t{seed}.parquet"
    WRITE[writer_of(seed)](path, columns, layout_of(seed), random)
    return path


def writer_of(seed: int) -> str:
    return WRITERS[seed % len(WRITERS)]


def layout_of(seed: int) -> str:
    return LAYOUTS[seed // len(WRITERS) % len(LAYOUTS)]


def null_arrays(columns: Columns) -> list[str]:
    """DuckDB's arrays with a null row: Arrow cannot read how DuckDB writes those."""
    return [
        name
        for name, (values, kind) in columns.items()
        if isinstance(kind, str) and kind.endswith("]") and kind[-2] != "[" and None in values
    ]


def typed(
    random: np.random.Generator, writer: str, name: str, kind: Kind, values: list[Any]
) -> tuple[list[Any], Any]:
    """The values and the column's type: a kind, or a list of it."""
    if name not in LISTS:
        if writer == "pyarrow" and all(value is None for value in values):
            return values, pa.null() if kind.taken else kind.type
        return values, kind.type
    lengths = {len(value) for value in values if value is not None}
    same = lengths.pop() if len(lengths) == 1 and 0 not in lengths else 0
    fixed = bool(same and random.random() < 0.4)
    if writer == "polars":
        return values, pl.Array(kind.type, same) if fixed else pl.List(kind.type)
    if writer == "duckdb":
        return values, f"{kind.type}[{same if fixed else ''}]"
    element = pa.binary(16) if is_uuid(kind) else kind.type  # pyarrow makes no lists of UUIDs
    if kind.taken and not any(values) and random.random() < 0.5:
        element = pa.null()
    if fixed:
        return values, pa.list_(element, same)
    of = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)[int(random.integers(4))]
    return values, of(element)


def _pyarrow(path: Path, columns: Columns, layout: str, random: np.random.Generator) -> None:
    table = pa.table({name: _arrow(values, kind) for name, (values, kind) in columns.items()})
    if layout == "file":
        pq.write_table(
            table,
            path,
            row_group_size=int(random.integers(1, 30)),
            compression=str(random.choice(["snappy", "zstd", "none"])),
            data_page_version=str(random.choice(["1.0", "2.0"])),
        )
        return
    for part, start in enumerate(range(0, len(table), 8)):
        folder = path / f"dt=2026-11-{part + 1:02}" if layout == "partitioned" else path
        _mark(path)
        folder.mkdir(exist_ok=True)
        pq.write_table(table.slice(start, 8), folder / f"part-{part:05}.parquet")


def _arrow(values: list[Any], kind: pa.DataType) -> pa.Array:
    types = pa.types
    if types.is_dictionary(kind):
        inner = kind.value_type
        return pa.array(_mapped(values, lambda value: _as(value, inner)), inner).dictionary_encode()
    if not types.is_nested(kind):
        return pa.array(_mapped(values, lambda number: _as(number, kind)), kind)
    element = kind.value_type
    inner = element.value_type if types.is_dictionary(element) else element
    plain_values = _mapped(values, lambda number: _as(number, inner))
    if types.is_dictionary(element):  # pyarrow makes no lists of dictionaries from Python values
        kind = pa.list_(inner)
    if types.is_fixed_size_list(kind) and not types.is_decimal(inner) and not types.is_null(inner):
        array = pa.array(plain_values, kind)
        if types.is_integer(inner) or types.is_floating(inner):
            tensor = pa.fixed_shape_tensor(inner, (kind.list_size,))
            return pa.ExtensionArray.from_storage(tensor, array)
        return array
    return pa.array(plain_values, kind)


def _as(number: Any, kind: pa.DataType) -> Any:
    if isinstance(number, str):
        by_bytes = pa.types.is_fixed_size_binary(kind) or isinstance(kind, pa.UuidType)
        return UUID(number).bytes if by_bytes else number
    if pa.types.is_fixed_size_binary(kind) or isinstance(kind, pa.UuidType):
        return number.to_bytes(16)
    if pa.types.is_decimal(kind):
        return Decimal(number)
    if pa.types.is_floating(kind):
        return np.float16(number) if kind == pa.float16() else float(number)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return str(number)
    return number


def _mapped(values: list[Any], change: Callable[[Any], Any]) -> list[Any]:
    return [
        None
        if value is None
        else _mapped(value, change)
        if isinstance(value, list)
        else change(value)
        for value in values
    ]


def _holds_texts(values: list[Any]) -> bool:
    return any(isinstance(v, str) or (isinstance(v, list) and _holds_texts(v)) for v in values)


def _polars(path: Path, columns: Columns, layout: str, random: np.random.Generator) -> None:
    frame = pl.DataFrame(
        {name: _series(name, values, kind) for name, (values, kind) in columns.items()}
    )
    if layout == "file":
        frame.write_parquet(path, row_group_size=int(random.integers(1, 30)))
        return
    for part, start in enumerate(range(0, len(frame), 8)):
        folder = path / f"dt=2026-11-{part + 1:02}" if layout == "partitioned" else path
        _mark(path)
        folder.mkdir(exist_ok=True)
        frame.slice(start, 8).write_parquet(folder / f"{part:08}.parquet")


def _series(name: str, values: list[Any], kind: Any) -> Any:
    nested = isinstance(kind, pl.List | pl.Array)
    textual = kind in (pl.String, pl.Categorical, pl.Date)
    if all(value is None for value in values) and not nested and not textual:
        return pl.Series(name, values, pl.Null)
    base = pl.String if _holds_texts(values) else pl.Int64
    series = pl.Series(name, values, pl.List(base) if nested else base)
    if base == pl.Int64 and "Categorical" in str(kind):  # polars casts integers to codes
        series = series.cast(pl.List(pl.String) if nested else pl.String)
    return series.cast(kind)


def _duckdb(path: Path, columns: Columns, layout: str, random: np.random.Generator) -> None:
    arrays = {}
    for name, (values, kind) in columns.items():
        if "UUID" in kind:
            values = _mapped(values, lambda v: v if isinstance(v, str) else str(UUID(int=v)))
        base = pa.string() if _holds_texts(values) else pa.int64()
        arrays[name] = pa.array(values, pa.list_(base) if name in LISTS else base)
    arrays["dt"] = pa.array([f"2026-11-{row // 8 + 1:02}" for row in range(_rows(columns))])
    table = pa.table(arrays)
    casts = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, (_, kind) in columns.items())
    options = {
        "file": f"ROW_GROUP_SIZE {int(random.integers(1, 30))}",
        "folder": "PER_THREAD_OUTPUT true",
        "partitioned": "PARTITION_BY (dt)",
    }[layout]
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("source", table)
        connection.execute(
            f"COPY (SELECT {casts}, dt FROM source) TO '{path}' (FORMAT parquet, {options})"
        )
    if layout != "file":
        _mark(path)


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values()))[0])


def _mark(folder: Path) -> None:
    """Add what Spark and Hadoop put beside the parts."""
    folder.mkdir(exist_ok=True)
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.parquet.crc").write_bytes(b"crc\0")


WRITE = {"pyarrow": _pyarrow, "polars": _polars, "duckdb": _duckdb}
