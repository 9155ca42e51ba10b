"""Random tables of histories, of integer and of text ids, as other programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import HistoryParquet
from feature_store.text_ids import TextIds
from tests.feature_store.parquet.other_items import KEY
from tests.feature_store.parquet.other_writers import (
    LONG,
    Columns,
    Kind,
    Result,
    chosen_for_ids,
    ids,
    is_uuid,
    layout_of,
    refusal,
    typed,
    write,
    writer_of,
)

Histories = dict[Any, list[Any]]  # of a user, newest first


def compare(seed: int, folder: Path, *, mapped: bool) -> Result:
    """Write the table of ``seed`` into ``folder`` and read it for a store of numeric or text ids.

    Of each user the last sound row counts; a file may be refused as in ``other_items``.
    """
    random, writer = np.random.default_rng(seed), writer_of(seed)
    count = int(random.integers(1, 24))
    of_users, of_items = (chosen_for_ids(random, writer, mapped=mapped) for _ in range(2))
    users, sequences = _users(random, of_users, count), _sequences(random, of_items, count)
    columns: Columns = {
        "user_id": typed(random, writer, "user_id", of_users, users),
        "item_seq": typed(random, writer, "item_seq", of_items, sequences),
    }
    refused = [
        name for name, kind in (("user_id", of_users), ("item_seq", of_items)) if not kind.taken
    ]
    shown = ", ".join(f"{name} {kind}" for name, (_, kind) in columns.items())
    what = f"seed {seed}: {writer}, {layout_of(seed)}, {count} rows, mapped {mapped}: {shown}"
    path = write(seed, folder, columns, random)
    text_ids = TextIds(KEY) if mapped else None
    try:
        batches = list(HistoryParquet(path, text_ids).batches(int(random.integers(1, 30))))
    except DataFileError as error:
        return Result(refusal(error, seed, folder, columns, refused), f"{what}: {error}")
    if refused:
        return Result("wrong", f"{what}: {refused} should have been refused")
    expected, wrong = _expected(users, sequences, of_items)
    read = _read(batches, text_ids)
    if text_ids:
        expected = {str(user): [str(item) for item in items] for user, items in expected.items()}
    if read != expected:
        return Result("wrong", f"{what}: {read} instead of {expected}")
    if (rejected := sum(len(batch.rejected) for batch in batches)) != wrong:
        return Result("wrong", f"{what}: {rejected} rows rejected instead of {wrong}")
    return Result("equal", what)


def _users(random: np.random.Generator, kind: Kind, count: int) -> list[Any]:
    """Ids, some of them repeated, missing, or no ids."""
    pool = ids(random, kind, max(1, count // 2))
    values = [pool[int(at)] for at in random.integers(0, len(pool), count)]
    spoilt: list[Any] = [None]
    if kind.text and kind.taken and not is_uuid(kind):
        spoilt += ["", LONG]
    share = random.choice([0, 0, 0.2])
    return [
        spoilt[int(random.integers(len(spoilt)))] if random.random() < share else value
        for value in values
    ]


def _sequences(random: np.random.Generator, kind: Kind, count: int) -> list[Any]:
    """Lists of ids, padded on the left or not; some of them missing, or with a fault."""
    pool, text = ids(random, kind, 8), kind.text and kind.taken
    padding = [0] if not text else [None] if is_uuid(kind) else [None, ""]
    even, share = random.random() < 0.5, random.choice([0, 0, 0.2])
    values: list[Any] = []
    for _ in range(count):
        real = [pool[int(at)] for at in random.integers(0, len(pool), random.integers(0, 4))]
        free = 3 - len(real) if even else int(random.integers(0, 3))
        value = [padding[int(random.integers(len(padding)))] for _ in range(free)] + real
        if random.random() < share:
            spoilt = [None, [pool[0], LONG]] if text and not is_uuid(kind) else [None]
            spoilt += [] if text else [[pool[0], None, pool[0]]]
            value = spoilt[int(random.integers(len(spoilt)))]
        values.append(value)
    return values


def _expected(users: list[Any], sequences: list[Any], of_items: Kind) -> tuple[Histories, int]:
    """The histories that count, and how many rows are to be rejected."""
    found: Histories = {}
    rejected = 0
    for user, items in zip(users, sequences, strict=True):
        null_inside = not of_items.text and None in (items or ())
        if user in (None, "", LONG) or items is None or LONG in items or null_inside:
            rejected += 1
        else:
            found[user] = [item for item in items[::-1] if item not in (None, "", 0)]
    return found, rejected


def _read(batches: list[Any], text_ids: TextIds | None) -> Histories:
    found: Histories = {}
    for batch in batches:
        for user, items in batch.histories.items():
            if text_ids is None:
                found[user] = items.tolist()
                continue
            text = batch.user_texts[user]
            assert text_ids.number(text) == user
            found[text] = [batch.item_texts[item] for item in items.tolist()]
    return found
