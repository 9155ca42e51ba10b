"""Random tables of item features, written by pyarrow, polars and DuckDB in many types.

``compare`` writes one and reads it back: every value must be equal, or the file refused in one line
that names it and a column of a type outside of the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.items import ItemParquet
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema

SLOTS, SIZE, VOCABULARY = 3, 2, 100
SCHEMA = FeatureSchema(
    name="small",
    history_length=4,
    item=(
        Categorical(name="index", vocabulary=VOCABULARY, width=4),
        CategoricalList(
            name="tags", kind="categorical_list", vocabulary=VOCABULARY, slots=SLOTS, width=4
        ),
        Dense(name="emb", kind="dense", size=SIZE, width=4),
    ),
    identity="index",
    context=(Categorical(name="level", vocabulary=VOCABULARY, width=4),),
)
EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of a writer, and the numbers that it holds. ``taken``: the contract has it."""

    type: Any
    most: int = 2**63 - 1
    taken: bool = True


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
        *(Kind(pa.string(), taken=False), Kind(pa.large_string(), taken=False)),
        *(Kind(pa.date32(), 2**20, taken=False), Kind(pa.timestamp("us"), 2**40, taken=False)),
    ],
    "polars": [
        *_kinds(
            lambda name: getattr(pl, name),
            "Int8:6 UInt8:7 Int16:14 UInt16:15 Int32:30 UInt32:31 Int64:62 UInt64:62 "
            "Float32:24 Float64:53",
        ),
        *(Kind(pl.Decimal(20, 0), 2**62), Kind(pl.Decimal(30, 3), 2**62)),
        *(Kind(pl.String, taken=False), Kind(pl.Date, 2**20, taken=False)),
    ],
    "duckdb": [
        *_kinds(
            str,
            "TINYINT:6 UTINYINT:7 SMALLINT:14 USMALLINT:15 INTEGER:30 UINTEGER:31 BIGINT:62 "
            "UBIGINT:62 HUGEINT:53 FLOAT:24 DOUBLE:53",
        ),
        *(Kind("DECIMAL(18,0)", 2**59), Kind("DECIMAL(38,0)", 2**62)),
        *(Kind("DECIMAL(30,5)", 2**62), Kind("VARCHAR", taken=False)),
    ],
}
Columns = dict[str, tuple[list[Any], Any]]
WRITERS = tuple(NUMBERS)
LAYOUTS = ("file", "folder", "partitioned")


@dataclass(frozen=True, slots=True)
class Result:
    """``outcome``: equal, refused or wrong; ``what`` describes the table and a fault."""

    outcome: str
    what: str


def compare(seed: int, folder: Path) -> Result:
    """Write the table of ``seed`` into ``folder`` and read it back."""
    random = np.random.default_rng(seed)
    writer = WRITERS[seed % len(WRITERS)]
    layout = LAYOUTS[seed // len(WRITERS) % len(LAYOUTS)]
    count = int(random.integers(1, 24))
    columns: Columns = {}
    expected: dict[str, list[Any]] = {}
    refused = []
    for name in ("item_id", "index", "level", "tags", "emb"):
        kind = _chosen(random, NUMBERS[writer])
        values = _values(random, name, kind, count)
        expected[name] = values
        columns[name] = _typed(random, writer, name, kind, values)
        if not kind.taken:
            refused.append(name)
    shown = ", ".join(f"{name} {kind}" for name, (_, kind) in columns.items())
    what = f"seed {seed}: {writer}, {layout}, {count} rows: {shown}"
    path = folder / f"t{seed}.parquet"
    WRITE[writer](path, columns, layout, random)
    try:
        batches = list(ItemParquet([path], SCHEMA).batches(int(random.integers(1, 30))))
    except DataFileError as error:
        line = str(error)
        named = any(f"column {name}: holds" in line for name in refused)
        named |= any(f"column {name}: cannot be read" in line for name in _null_arrays(columns))
        fine = named and str(path) in line and "\n" not in line
        return Result("refused" if fine else "wrong", f"{what}: {line}")
    if refused:
        return Result("wrong", f"{what}: {refused} should have been refused")
    return _judged(batches, expected, what)


def _null_arrays(columns: Columns) -> list[str]:
    """DuckDB's arrays with a null row: Arrow cannot read how DuckDB writes those."""
    return [
        name
        for name, (values, kind) in columns.items()
        if isinstance(kind, str) and kind.endswith("]") and kind[-2] != "[" and None in values
    ]


def _judged(batches: list[Any], expected: dict[str, list[Any]], what: str) -> Result:
    read = {
        int(item): row for batch in batches for item, row in zip(batch.ids, batch.rows, strict=True)
    }
    rejected = sum(len(batch.rejected) for batch in batches)
    sound = 0
    for at, item in enumerate(expected["item_id"]):
        values = {name: column[at] for name, column in expected.items()}
        if any(value is None for value in values.values()):
            continue
        sound += 1
        row = read.get(item)
        if row is None:
            return Result("wrong", f"{what}: item {item} is missing")
        tags = [0] * (SLOTS - len(values["tags"])) + values["tags"]
        same = (
            row["index"] == values["index"]
            and row["level"] == values["level"]
            and row["tags"].tolist() == tags
            and row["emb"].tolist() == values["emb"]
        )
        if not same:
            return Result("wrong", f"{what}: item {item}: {row} instead of {values}")
    if len(read) != sound or rejected != len(expected["item_id"]) - sound:
        return Result("wrong", f"{what}: {len(read)} of {sound} items, {rejected} rejected")
    return Result("equal", what)


def _chosen(random: np.random.Generator, kinds: list[Kind]) -> Kind:
    """One of the kinds; those outside of the contract in one column of fifty."""
    outside = random.random() < 0.02
    fitting = [kind for kind in kinds if kind.taken is not outside]
    return fitting[int(random.integers(len(fitting)))]


def _values(random: np.random.Generator, name: str, kind: Kind, count: int) -> list[Any]:
    most = min(kind.most, VOCABULARY - 1)
    missing = random.random(count) < random.choice([0, 0, 0.2])
    values: list[Any]
    match name:
        case "item_id":
            drawn = {int(i) for i in random.integers(1, kind.most, 4 * count, dtype=np.int64)}
            drawn |= set(range(1, 1 + count))
            return random.permutation(np.array(sorted(drawn)[-count:], np.int64)).tolist()
        case "tags":
            even = random.random() < 0.3
            empty = random.random() < 0.1
            lengths = [
                0 if empty else SLOTS if even else int(n) for n in random.integers(0, 4, count)
            ]
            values = [random.integers(0, most + 1, n).tolist() for n in lengths]
        case "emb":
            values = random.integers(0, 50, (count, SIZE)).tolist()
        case _:
            values = random.integers(0, most + 1, count).tolist()
            if random.random() < 0.03:
                return [None] * count
    return [None if gone else value for gone, value in zip(missing, values, strict=True)]


def _typed(
    random: np.random.Generator, writer: str, name: str, kind: Kind, values: list[Any]
) -> tuple[list[Any], Any]:
    """The values and the column's type: a kind, or a list of it."""
    if name not in ("tags", "emb"):
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
    element = kind.type
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
        return pa.array(values, kind.value_type).dictionary_encode()
    if not types.is_nested(kind):
        return pa.array(_mapped(values, lambda number: _as(number, kind)), kind)
    element = kind.value_type
    inner = pa.int64() if types.is_dictionary(element) else element
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


def _as(number: int, kind: pa.DataType) -> Any:
    if pa.types.is_decimal(kind):
        return Decimal(number)
    if pa.types.is_floating(kind):
        return np.float16(number) if kind == pa.float16() else float(number)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str(number)
    return number


def _mapped(values: list[Any], change: Callable[[int], Any]) -> list[Any]:
    return [
        None
        if value is None
        else [change(element) for element in value]
        if isinstance(value, list)
        else change(value)
        for value in values
    ]


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
    if all(value is None for value in values) and not nested and kind not in (pl.String, pl.Date):
        return pl.Series(name, values, pl.Null)
    return pl.Series(name, values, pl.List(pl.Int64) if nested else pl.Int64).cast(kind)


def _duckdb(path: Path, columns: Columns, layout: str, random: np.random.Generator) -> None:
    nested = pa.list_(pa.int64())
    table = pa.table(
        {
            name: pa.array(values, nested if name in ("tags", "emb") else pa.int64())
            for name, (values, _) in columns.items()
        }
    ).append_column("dt", pa.array([f"2026-11-{row // 8 + 1:02}" for row in range(_rows(columns))]))
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
    return len(columns["item_id"][0])


def _mark(folder: Path) -> None:
    """Add what Spark and Hadoop put beside the parts."""
    folder.mkdir(exist_ok=True)
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.parquet.crc").write_bytes(b"crc\0")


WRITE = {"pyarrow": _pyarrow, "polars": _polars, "duckdb": _duckdb}
