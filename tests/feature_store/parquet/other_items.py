"""Random tables of item features, of integer and of text ids, as other programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.items import ItemParquet
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from feature_store.text_ids import TextIds
from tests.feature_store.parquet.other_writers import (
    Columns,
    Kind,
    Result,
    chosen,
    chosen_for_ids,
    ids,
    layout_of,
    refusal,
    typed,
    write,
    writer_of,
)

KEY = bytes(range(16))
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


def compare(seed: int, folder: Path, *, mapped: bool) -> Result:
    """Write the table of ``seed`` into ``folder`` and read it for a store of numeric or text ids.

    Every value must be equal, or the file refused in one line that names it and a column of a type
    outside of the contract.
    """
    random, writer = np.random.default_rng(seed), writer_of(seed)
    count = int(random.integers(1, 24))
    columns: Columns = {}
    expected: dict[str, list[Any]] = {}
    refused = []
    for name in ("item_id", "index", "level", "tags", "emb"):
        if name == "item_id":
            kind = chosen_for_ids(random, writer, mapped=mapped)
            values = ids(random, kind, count)
        else:
            kind = chosen(random, writer)
            values = _values(random, name, kind, count)
        expected[name] = values
        columns[name] = typed(random, writer, name, kind, values)
        if not kind.taken:
            refused.append(name)
    shown = ", ".join(f"{name} {kind}" for name, (_, kind) in columns.items())
    what = f"seed {seed}: {writer}, {layout_of(seed)}, {count} rows, mapped {mapped}: {shown}"
    path = write(seed, folder, columns, random)
    text_ids = TextIds(KEY) if mapped else None
    try:
        source = ItemParquet([path], SCHEMA, text_ids=text_ids)
        batches = list(source.batches(int(random.integers(1, 30))))
    except DataFileError as error:
        return Result(refusal(error, seed, folder, columns, refused), f"{what}: {error}")
    if refused:
        return Result("wrong", f"{what}: {refused} should have been refused")
    return _judged(batches, expected, text_ids, what)


def _judged(
    batches: list[Any], expected: dict[str, list[Any]], text_ids: TextIds | None, what: str
) -> Result:
    read = {
        batch.texts[int(item)] if text_ids else int(item): row
        for batch in batches
        for item, row in zip(batch.ids, batch.rows, strict=True)
    }
    numbers = [number for batch in batches for number in batch.ids.tolist()]
    if text_ids and text_ids.numbers(list(read)).tolist() != numbers:
        return Result("wrong", f"{what}: other numbers")
    rejected = sum(len(batch.rejected) for batch in batches)
    sound = 0
    for at, item in enumerate(expected["item_id"]):
        values = {name: column[at] for name, column in expected.items()}
        if any(value is None for value in values.values()):
            continue
        sound += 1
        row = read.get(str(item) if text_ids else item)
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


def _values(random: np.random.Generator, name: str, kind: Kind, count: int) -> list[Any]:
    most = min(kind.most, VOCABULARY - 1)
    missing = random.random(count) < random.choice([0, 0, 0.2])
    values: list[Any]
    match name:
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
