"""Static levels: found where they are one per item over time, counted against the files' clicks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from feature_store.schema import FeatureSchema
from tests.training.worlds import SMALL, small_rows
from training.data.leakage import static_levels
from training.data.rows import Rows


def rows(count: int, seed: int, level: np.ndarray | None = None) -> Rows:  # type: ignore[type-arg]
    """Rows whose first context feature is the level of ``level`` by item, or random."""
    made = small_rows(count, seed)
    if level is not None:
        made.context[:, 0] = level[made.target]
    return made


LEVEL = np.arange(31) % 11


def dated(folder: Path, **days: object) -> Path:
    for name, day in days.items():
        table = pa.table({"time": pa.array(np.asarray(day) * 86_400, pa.timestamp("s"))})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def undated(folder: Path) -> Path:
    for name in ("train", "valid"):
        pq.write_table(pa.table({"item_id": [1]}), folder / f"{name}.parquet")
    return folder


def unseen(train: Rows, valid: Rows, items: list[int]) -> tuple[Rows, Rows]:
    """Without clicks of the items before the labels of ``valid``."""
    for part in (train, valid):
        part.history[np.isin(part.history, items)] = 0
    train.label[np.isin(train.target, items)] = 0
    return train, valid


def test_a_level_that_differs_between_rows_of_an_item_is_not_static(tmp_path: Path) -> None:
    assert static_levels(undated(tmp_path), rows(200, 2), rows(400, 1)) == []


def test_a_level_per_item_is_static_and_labels_without_an_earlier_click_are_counted(
    tmp_path: Path,
) -> None:
    train, valid = unseen(rows(400, 1, LEVEL), rows(200, 2, LEVEL), [7, 11])
    (found,) = static_levels(undated(tmp_path), valid, train)
    assert (found.feature, found.source, found.days) == ("likes_level", "rows", None)
    assert LEVEL[11] == 0, "level 0 claims no click"
    assert found.early == int((valid.target == 7).sum()) > 0
    assert found.labels == 200
    assert f"{found.early} of 200 labels have a level above 0" in str(found)
    (found,) = static_levels(undated(tmp_path), valid, None)
    assert found.early is None


def test_with_times_clicks_of_the_label_s_day_and_later_are_no_earlier_ones(
    tmp_path: Path,
) -> None:
    train, valid = unseen(rows(400, 1, LEVEL), rows(200, 2, LEVEL), [7])
    train.target[0], train.label[0] = 7, 1
    train.context[0, 0] = valid.context[0, 0] = LEVEL[7]
    valid.target[0] = 7
    days = np.zeros(400, int)
    later = np.arange(200) % 3 + 1
    of_item = valid.target == 7
    for click in range(5):
        days[0] = click
        (found,) = static_levels(dated(tmp_path, train=days, valid=later), valid, train)
        expected = sum(
            not (click < day or any(later[(valid.label == 1) & of_item] < day))
            for day in later[of_item]
        )
        assert found.early == expected
        assert found.days == len({0, 1, 2, 3, click})


def test_an_item_of_a_history_is_known_on_the_day_of_its_row(tmp_path: Path) -> None:
    train, valid = unseen(rows(400, 1, LEVEL), rows(200, 2, LEVEL), [7])
    valid.label[valid.target == 7] = 0
    valid.history[5, -1] = 7
    days = np.full(200, 3)
    days[valid.target == 7] = np.arange((valid.target == 7).sum()) % 6
    (found,) = static_levels(dated(tmp_path, train=np.zeros(400, int), valid=days), valid, train)
    assert found.early == int((days[valid.target == 7] < days[5]).sum()) > 0


def test_levels_of_one_day_are_one_per_item_by_nature(tmp_path: Path) -> None:
    train, valid = rows(400, 1, LEVEL), rows(200, 2, LEVEL)
    days = {"train": np.zeros(400, int), "valid": np.zeros(200, int)}
    assert static_levels(dated(tmp_path, **days), valid, train) == []
    days["valid"][:] = 1
    assert len(static_levels(dated(tmp_path, **days), valid, train)) == 1


def test_one_level_for_all_items_says_nothing(tmp_path: Path) -> None:
    level = np.full(31, 4)
    assert static_levels(undated(tmp_path), rows(200, 2, level), rows(400, 1, level)) == []


def test_levels_of_the_item_table_are_static(tmp_path: Path) -> None:
    """As in the level variant, where the table has them for history items, too."""
    level = {"name": "likes_level", "kind": "categorical", "vocabulary": 11, "width": 3}
    content = SMALL.model_dump(mode="json")
    schema = FeatureSchema.model_validate(content | {"item": [level, *content["item"]]})
    assert schema.shared
    train, valid = (small_rows(n, seed, schema) for n, seed in ((400, 1), (200, 2)))
    valid.items.tensors["likes_level"] = torch.from_numpy(LEVEL)
    (found,) = static_levels(undated(tmp_path), valid, replace(train, items=valid.items))
    assert (found.feature, found.source) == ("likes_level", "item table")


@pytest.mark.parametrize(("unit", "days"), [(None, None), ("s", 2)])
def test_integer_times_count_with_their_unit_alone(
    tmp_path: Path, unit: str | None, days: int | None
) -> None:
    for name, count, second in (("train", 400, 0), ("valid", 200, 86_400)):
        pq.write_table(pa.table({"time": [second] * count}), tmp_path / f"{name}.parquet")
    (found,) = static_levels(tmp_path, rows(200, 2, LEVEL), rows(400, 1, LEVEL), unit)
    assert found.days == days
