"""Dense features far from unit magnitude are named as the data are opened for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.schema import FeatureSchema
from tests.training.test_cli import SIZES
from tests.training.test_replace import run
from tests.training.test_users import IDS, SCHEMA, folder_of, row_columns, user_columns
from training.data.dataset import open_data

PRICED = FeatureSchema.from_yaml(
    """
name: priced
history_length: 3
item:
  - {name: item_id, kind: categorical, vocabulary: 20, width: 4}
  - {name: price, kind: dense, size: 1, width: 2}
  - {name: ratio, kind: dense, size: 2, width: 2}
identity: item_id
context: [{name: level, vocabulary: 4, width: 2}]
""",
    source="priced",
)


def priced(folder: Path, apart: bool, scale: float) -> Path:
    """A data folder whose prices are 1 … 9 times a scale, joined from a second file or not."""
    folder_of(folder, None)
    ids = np.arange(1, 10)
    info = {"item_id": pa.array(ids), "ratio": pa.array([[0.5, 9.9]] * 9)}
    price = {"price": pa.array(ids * scale)}
    pq.write_table(pa.table(info if apart else info | price), folder / "item_info.parquet")
    if apart:
        more = {"item_id": pa.array(ids)} | price
        pq.write_table(pa.table(more), folder / "item_feature.parquet")
    return folder


def magnitudes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "root mean square" in message]


@pytest.mark.parametrize("apart", [False, True])
def test_an_item_feature_far_from_unit_magnitude_is_named_once_with_its_file(
    tmp_path: Path, apart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    open_data(priced(tmp_path, apart, 10.0), PRICED)
    file = tmp_path / ("item_feature.parquet" if apart else "item_info.parquet")
    assert magnitudes(caplog) == [
        f"warning: {file}: column price: values of about 56 (root mean square); dense features "
        "are not scaled: divide them, in the store's files too"
    ]


def test_values_near_unit_magnitude_are_not_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_data(priced(tmp_path, False, 1.0), PRICED)
    assert magnitudes(caplog) == []


def test_a_user_feature_is_named_with_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = user_columns(IDS, taste=pa.array([[1.0, 3e4], [0.0, -3e4], [0.0, 3e4]]))
    open_data(folder_of(tmp_path, users), SCHEMA)
    assert magnitudes(caplog) == [
        f"warning: {tmp_path / 'user_info.parquet'}: column taste: values of about 30,000 (root "
        "mean square); dense features are not scaled: divide them, in the store's files too"
    ]


@pytest.mark.parametrize("preset", ["demo", "challenge", "taste"])
def test_the_synthetic_data_bring_no_warning(
    tmp_path: Path, preset: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("synthesize", tmp_path, "--preset", preset, *SIZES[:8]).exit_code == 0
    words = ("--preset", "demo", "--epochs", "1", "--out", tmp_path / "c")
    fitted = run("fit", tmp_path, *words)
    assert fitted.exit_code == 0, fitted.output
    assert magnitudes(caplog) == []


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ([None] * 4, "missing in every row"),
        ([7.5, None, 7.5, 7.5], "7.5 in every row that has it"),
        ([7.5, None, 7.5, 8.0], None),
    ],
)
def test_a_number_of_the_request_that_never_varies_is_named(
    tmp_path: Path, hours: list[float | None], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    train = row_columns([IDS[1], IDS[0], IDS[1], IDS[2]], hour=pa.array(hours, pa.float32()))
    open_data(folder_of(tmp_path, user_columns(IDS), train), SCHEMA)
    told = [message for message in caplog.messages if "nothing is learned" in message]
    place = f"warning: {tmp_path / 'train.parquet'}: column hour: {said}; nothing is learned of it"
    assert len(told) == (said is not None)
    assert all(message.startswith(place) for message in told)
