"""User and request features of training, from real parquet files to batches and weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner, Result

from feature_store.schema import FeatureSchema
from training import checkpoint
from training.__main__ import app
from training.data import row_cache
from training.data.dataset import Data, ReaderError, open_data, open_held_out
from training.data.rows import Rows
from training.loop.data_parallel import process_group
from training.loop.fit import fit, predict
from training.loop.run import FitError
from training.qin import QINSizes
from training.recipe import Recipe

TEXTS = "holds string, not integers; give its values the indices 1, 2, … .0 is missing"
LEVEL = "{name: level, vocabulary: 4, width: 2, kind: categorical}"
SCHEMA = FeatureSchema.from_yaml(
    f"""
name: users
history_length: 3
user:
  - {{name: who, kind: categorical, vocabulary: 40, width: 4}}
  - {{name: country, kind: categorical, vocabulary: 5, width: 2}}
  - {{name: likes, kind: categorical_list, vocabulary: 9, slots: 3, width: 2}}
  - {{name: taste, kind: dense, size: 2, width: 2}}
user_identity: who
request:
  - {{name: device, kind: categorical, vocabulary: 4, width: 2}}
  - {{name: hour, kind: numeric, width: 2}}
item: [{LEVEL}, {{name: item_id, kind: categorical, vocabulary: 20, width: 4}}]
identity: item_id
context: [{LEVEL}]
""",
    source="users",
)


def schema_of(**changed: Any) -> FeatureSchema:
    content = SCHEMA.model_dump() | changed
    for feature in content["user"]:
        feature.setdefault("kind", "categorical")
    return FeatureSchema.model_validate(content)


ALONE = schema_of(user=SCHEMA.model_dump()["user"][:1])  # the identity alone
IDS = [900, 5, 2**62]  # of the users; 5 is in the training rows twice
RECIPE = Recipe(
    sizes=QINSizes(attention_width=8, layers=1, rows=2), batch_size=64, epochs=2, learning_rate=1e-2
)


def row_columns(users: list[int], **more: Any) -> dict[str, Any]:
    n = len(users)
    return {
        "user_id": pa.array(users),
        "item_seq": pa.array([[0, 1, 2]] * n),
        "item_id": pa.array([1 + i % 9 for i in range(n)]),
        "level": pa.array([1] * n),
        "device": pa.array([1 + i % 3 for i in range(n)]),
        "hour": pa.array([float(i) for i in range(n)]),
        "label": pa.array([float(i % 2) for i in range(n)]),
    } | more


def user_columns(ids: list[int], **more: Any) -> dict[str, Any]:
    n = len(ids)
    return {
        "user_id": pa.array(ids),
        "who": pa.array([3 + i for i in range(n)]),
        "country": pa.array([1 + i for i in range(n)]),
        "likes": pa.array([[1 + i] for i in range(n)]),
        "taste": pa.array([[0.5, float(i)] for i in range(n)]),
    } | more


def folder_of(
    path: Path,
    users: dict[str, Any] | None,
    train: dict[str, Any] | None = None,
    valid: dict[str, Any] | None = None,
) -> Path:
    path.mkdir(exist_ok=True)
    items = {"item_id": pa.array(range(10)), "level": pa.array([0, *([1, 2, 3] * 3)])}
    pq.write_table(pa.table(items), path / "item_info.parquet")
    pq.write_table(
        pa.table(train or row_columns([IDS[1], IDS[0], IDS[1], IDS[2]])), path / "train.parquet"
    )
    pq.write_table(pa.table(valid or row_columns([IDS[2], 77])), path / "valid.parquet")
    if users is not None:
        pq.write_table(pa.table(users), path / "user_info.parquet")
    return path


def of_rows(rows: Rows, name: str) -> list[Any]:
    """A user feature of each row, by way of a batch of all rows."""
    batch = rows.batch(np.arange(len(rows)))
    assert batch.user is not None
    for values in batch.users.values():
        assert not values[0].any()  # the unknown user
    values = batch.users[name][batch.user].tolist()
    assert isinstance(values, list)
    return values


def test_user_features_come_from_the_users_file_of_the_folder_or_the_one_named(
    tmp_path: Path,
) -> None:
    data = open_data(folder_of(tmp_path, user_columns(IDS)), SCHEMA)
    assert of_rows(data.train, "who") == [4, 3, 4, 5]
    assert of_rows(data.train, "country") == [2, 1, 2, 3]
    assert of_rows(data.train, "likes") == [[0, 0, 2], [0, 0, 1], [0, 0, 2], [0, 0, 3]]
    assert of_rows(data.train, "taste") == [[0.5, 1], [0.5, 0], [0.5, 1], [0.5, 2]]
    assert of_rows(data.valid, "who") == [5, 0]  # 77 has no record
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table(user_columns(IDS, country=pa.array([4, 4, 1]))), other)
    named = open_data(tmp_path, SCHEMA, users=other)
    assert of_rows(named.train, "country") == [4, 4, 4, 1]


def test_users_not_in_the_users_file_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "training"):
        open_data(folder_of(tmp_path, user_columns(IDS)), SCHEMA)
    assert "1 users of" in caplog.text
    assert "valid.parquet are not in" in caplog.text


def test_a_users_file_without_users_is_not_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    none = {name: array[:0] for name, array in user_columns(IDS).items()}
    with caplog.at_level(logging.WARNING, "training"):
        open_data(folder_of(tmp_path, none), SCHEMA)
    assert f"3 users of {tmp_path / 'train.parquet'} are not in" in caplog.text


@pytest.mark.parametrize("indices", ["given", "assigned"])
def test_training_rows_of_rare_users_alone_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, indices: str
) -> None:
    users = user_columns(IDS) if indices == "given" else None
    with caplog.at_level(logging.WARNING, "training"):
        open_data(folder_of(tmp_path, users), SCHEMA if users else ALONE, min_count=3)
    assert "user_min_count 3: no user has as many training rows: all are unknown" in caplog.text


def test_a_column_of_the_rows_is_read_per_row_where_the_users_file_lacks_it(tmp_path: Path) -> None:
    users = user_columns(IDS)
    del users["country"]
    train = row_columns([IDS[1], IDS[0], IDS[1], IDS[2]], country=pa.array([1, 2, 4, 3]))
    valid = row_columns([IDS[2], 77], country=pa.array([1, 2]))
    data = open_data(folder_of(tmp_path, users, train, valid), SCHEMA)
    assert of_rows(data.train, "country") == [1, 2, 4, 3]  # one user moved meanwhile
    assert of_rows(data.train, "who") == [4, 3, 4, 5]
    assert of_rows(data.valid, "country") == [1, 2]


def test_the_users_file_wins_over_a_column_of_the_rows_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = row_columns([IDS[1], IDS[0]], country=pa.array([4, 4]))
    with caplog.at_level(logging.WARNING, "training"):
        data = open_data(folder_of(tmp_path, user_columns(IDS), train), SCHEMA)
    assert of_rows(data.train, "country") == [2, 1]
    assert "column country: not read" in caplog.text


def test_a_user_feature_that_is_nowhere_is_named_in_one_line(tmp_path: Path) -> None:
    users = user_columns(IDS)
    del users["taste"]
    with pytest.raises(ReaderError, match=r"has no column 'taste', and .*user_info") as caught:
        open_data(folder_of(tmp_path, users), SCHEMA)
    assert "\n" not in str(caught.value)
    (tmp_path / "user_info.parquet").unlink()
    with pytest.raises(ReaderError, match="has no column 'country', and there is no users file"):
        open_data(tmp_path, SCHEMA)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"country": pa.array([1, 5, 1])}, "row 1, column country: 5 is not in the vocabulary"),
        ({"country": pa.array(["DE", "FR", "DE"])}, f"column country: {TEXTS}"),
        ({"taste": pa.array([[1.0]] * 3)}, "column taste: 1 values instead of 2"),
        ({"user_id": pa.array([5, 7, 5])}, "column user_id: id 5 repeated"),
        ({"user_id": pa.array([5, None, 6])}, "row 1, column user_id: null"),
    ],
)
def test_a_fault_of_the_users_file_is_named(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReaderError, match=message):
        open_data(folder_of(tmp_path, user_columns(IDS, **changed)), SCHEMA)


def test_a_fault_of_a_column_of_the_rows_is_named(tmp_path: Path) -> None:
    who = pa.array([1, 2, None, 4])
    train = row_columns([1, 2, 3, 4], who=who)
    with pytest.raises(ReaderError, match=r"train.parquet: row 2, column who: null"):
        open_data(folder_of(tmp_path, None, train), ALONE)


def test_indices_are_assigned_by_ascending_user_id_where_nothing_has_them(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path, None), ALONE)
    assert of_rows(data.train, "who") == [1, 2, 1, 3]
    assert of_rows(data.valid, "who") == [3, 0]  # a user without training rows


def test_users_of_few_rows_are_the_unknown_user(tmp_path: Path) -> None:
    data = open_data(folder_of(tmp_path, None), ALONE, min_count=2)
    assert of_rows(data.train, "who") == [1, 0, 1, 0]
    assert of_rows(data.valid, "who") == [0, 0]
    given = open_data(folder_of(tmp_path, user_columns(IDS)), SCHEMA, min_count=2)
    assert of_rows(given.train, "who") == [4, 0, 4, 0]
    assert of_rows(given.train, "country") == [2, 1, 2, 3]


def test_more_users_than_the_vocabulary_are_refused_with_the_remedy(tmp_path: Path) -> None:
    schema = schema_of(user=[{"name": "who", "vocabulary": 3, "width": 2}])
    with pytest.raises(ReaderError, match=r"3 users .*vocabulary of 3 for who: make it 4"):
        open_data(folder_of(tmp_path, None), schema)
    assert of_rows(open_data(tmp_path, schema, min_count=2).train, "who") == [1, 0, 1, 0]


def test_an_identity_named_user_id_is_the_id_itself(tmp_path: Path) -> None:
    index = {"name": "user_id", "vocabulary": 40, "width": 2}
    schema = schema_of(user=[index], user_identity="user_id")
    train, valid = row_columns([7, 3, 7]), row_columns([39, 3])
    data = open_data(folder_of(tmp_path, None, train, valid), schema)
    assert of_rows(data.train, "user_id") == [7, 3, 7]
    assert of_rows(data.valid, "user_id") == [39, 3]
    folder_of(tmp_path, None, row_columns([7, 40]), valid)
    with pytest.raises(ReaderError, match="column user_id: 40 is not in the vocabulary of 40"):
        open_data(tmp_path, schema)


def test_request_features_may_be_missing(tmp_path: Path) -> None:
    train = row_columns(
        [1, 2, 3, 4],
        device=pa.array([None, 1, 2, 3]),
        hour=pa.array([2.0, None, float("nan"), -1.0]),
    )
    rows = open_data(folder_of(tmp_path, None, train), ALONE).train
    batch = rows.batch(np.array([3, 1, 0, 2]))
    assert batch.request["device"].tolist() == [3, 1, 0, 2]
    assert batch.request["hour"].isnan().tolist() == [False, True, False, True]
    assert batch.request["hour"][[0, 2]].tolist() == [-1, 2]
    empty = row_columns([1, 2], hour=pa.nulls(2), device=pa.nulls(2))
    rows = open_data(folder_of(tmp_path, None, train, empty), ALONE).valid
    assert rows.batch(np.arange(2)).request["hour"].isnan().all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"device": pa.array([4, 1])}, "row 0, column device: 4 is not in the vocabulary of 4"),
        ({"device": pa.array([1, -1])}, "row 1, column device: -1 is negative"),
        ({"hour": pa.array([1.0, float("inf")])}, "row 1, column hour: infinite"),
        ({"hour": pa.array([1e39, 0.0])}, r"row 0, column hour: 1e\+39 is beyond float32"),
        ({"device": pa.array(["tv", None])}, f"column device: {TEXTS}"),
        ({"hour": pa.array(["1", "2"])}, "column hour: holds string, not numbers"),
    ],
)
def test_a_fault_of_a_request_feature_is_named(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReaderError, match=message):
        open_data(folder_of(tmp_path, None, row_columns([1, 2], **changed)), ALONE)


def test_a_batch_is_over_its_distinct_users(tmp_path: Path) -> None:
    rows = open_data(folder_of(tmp_path, user_columns(IDS)), SCHEMA).train
    batch = rows.batch(np.array([2, 0]))
    assert batch.users["who"].tolist() == [0, 4]
    assert batch.user is not None
    assert batch.user.tolist() == [1, 1]


def test_many_batches_of_a_file_share_their_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.reader.BATCH_ROWS", 3)
    users = [int(u) for u in np.random.default_rng(0).integers(0, 9, 50)]
    rows = open_data(folder_of(tmp_path, None, row_columns(users)), ALONE).train
    assert rows.users is not None
    assert len(rows.users.ids) == len(set(users)) + 1
    assert rows.users.ids[rows.users.row].tolist() == users
    order = sorted(set(users))
    assert of_rows(rows, "who") == [order.index(user) + 1 for user in users]


def test_a_cache_of_another_format_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, None)
    with monkeypatch.context() as before:
        before.setattr(row_cache, "FORMAT", 1)
        open_data(folder, ALONE)
    for file in (folder / ".cache").glob("*/user_row.npy"):
        file.unlink()  # as of a release that had no such array
    assert of_rows(open_data(folder, ALONE).train, "who") == [1, 2, 1, 3]


def trained(path: Path, schema: FeatureSchema = ALONE, recipe: Recipe = RECIPE) -> Data:
    rng = np.random.default_rng(1)
    users = [int(u) for u in rng.integers(100, 120, 300)]
    hours = pa.array([None if i % 5 == 0 else float(i % 24) for i in range(300)])
    train = row_columns(users, hour=hours)
    folder_of(path, None, train, row_columns([105, 7, 106, 110]))
    data = open_data(path, schema, min_count=recipe.user_min_count)
    with process_group() as group:
        fit(data.train, data.valid, recipe, path / "c", group)
    return data


def test_mean_and_deviation_of_the_training_rows_are_in_the_checkpoint(tmp_path: Path) -> None:
    data = trained(tmp_path)
    hour = checkpoint.load(tmp_path / "c").request_vector.embedding["hour"]
    assert data.train.request is not None
    given = data.train.request["hour"].astype(float)
    assert float(hour.mean) == pytest.approx(np.nanmean(given), rel=1e-6)
    assert float(hour.deviation) == pytest.approx(np.nanstd(given), rel=1e-6)


@pytest.mark.parametrize(("hour", "mean"), [(6.0, 6.0), (None, 0.0)])
def test_a_numeric_feature_without_deviation_has_one(
    tmp_path: Path, hour: float | None, mean: float
) -> None:
    train = row_columns([1, 2, 3, 4] * 20, hour=pa.array([hour] * 80, pa.float64()))
    data = open_data(folder_of(tmp_path, None, train), ALONE)
    with process_group() as group:
        fit(data.train, data.valid, RECIPE, tmp_path / "c", group)
    found = checkpoint.load(tmp_path / "c").request_vector.embedding["hour"]
    assert (float(found.mean), float(found.deviation)) == (mean, 1.0)


def test_a_user_without_training_rows_is_scored_as_the_unknown_one(tmp_path: Path) -> None:
    trained(tmp_path, recipe=RECIPE.model_copy(update={"user_min_count": 14}))
    table = checkpoint.load(tmp_path / "c").user_vector.embedding["who"].weight
    used = table.any(dim=1)
    assert 0 < used.sum() < 20  # some of 20 users have fewer rows
    assert not used[0]
    assert not used[21:].any()


def test_the_indices_that_training_found_are_in_the_checkpoint_as_a_users_file(
    tmp_path: Path,
) -> None:
    data = trained(tmp_path)
    index = pq.read_table(tmp_path / "c" / checkpoint.USER_INDEX)
    assert index.column_names == ["user_id", "who"]
    assert index["user_id"].to_pylist() == sorted(set(data.train.user.tolist()))
    assert index["who"].to_pylist() == list(range(1, len(index) + 1))
    network = checkpoint.load(tmp_path / "c")
    (tmp_path / "train.parquet").unlink()  # indices are not found again
    held_out, _ = open_held_out(tmp_path, ALONE, index=tmp_path / "c" / checkpoint.USER_INDEX)
    assert of_rows(held_out, "who") == of_rows(data.valid, "who")
    assert np.array_equal(predict(network, held_out), predict(network, data.valid))


def test_a_shared_table_is_one_in_a_loaded_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path)
    network = checkpoint.load(tmp_path / "c")
    assert network.context["level"] is network.item_vector.embedding["level"]
    assert network.context["level"].weight[1:].any()


def test_other_user_or_request_features_are_not_gone_on_with(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, user_columns(IDS))
    digest = open_data(folder, SCHEMA).train.digest
    folder_of(tmp_path, user_columns(IDS, country=pa.array([4, 1, 1])))
    assert open_data(folder, SCHEMA).train.digest != digest
    train = row_columns([IDS[1], IDS[0], IDS[1], IDS[2]], hour=pa.array([9.0] * 4))
    folder_of(tmp_path, user_columns(IDS), train)
    assert open_data(folder, SCHEMA).train.digest != digest


def test_rows_of_one_label_are_refused_as_before(tmp_path: Path) -> None:
    valid = row_columns([1, 2], label=pa.array([1.0, 1.0]))
    data = open_data(folder_of(tmp_path, None, None, valid), ALONE)
    with process_group() as group, pytest.raises(FitError, match="labels of one kind"):
        fit(data.train, data.valid, RECIPE, tmp_path / "c", group)


def test_scores_depend_on_user_and_request(tmp_path: Path) -> None:
    data = trained(tmp_path, recipe=RECIPE.model_copy(update={"epochs": 6}))
    network = checkpoint.load(tmp_path / "c")
    batch = data.valid.batch(np.array([0, 0, 0]))
    batch.request["hour"] += torch.tensor([0.0, 9.0, 0.0])
    batch.request["device"][2] = 0
    with torch.inference_mode():
        assert len(set(network(batch).tolist())) == 3


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_line_trains_and_evaluates_with_assigned_indices(tmp_path: Path) -> None:
    trained(tmp_path)
    (tmp_path / "schema.yaml").write_text(ALONE.to_yaml())
    out = tmp_path / "by-command"
    words = ("--preset", "demo", "--epochs", "1", "--set", "user_min_count=14", "--out", out)
    assert run("fit", tmp_path, *words).exit_code == 0
    index = pq.read_table(out / checkpoint.USER_INDEX)["user_id"].to_pylist()
    assert 0 < len(index) < 20
    found = run("evaluate", out, tmp_path, "--json")
    assert found.exit_code == 0, found.output
    slices = {part["slice"]: part["rows"] for part in json.loads(found.stdout)["slices"]}
    assert (slices["known user"], slices["new user"]) == (3, 1)
    (out / checkpoint.USER_INDEX).unlink()
    refused = run("evaluate", out, tmp_path)
    assert refused.exit_code == 1
    assert "has no column 'who', and there is no users file" in refused.stderr


def test_the_command_line_takes_a_users_file(tmp_path: Path) -> None:
    folder_of(tmp_path, None, None, row_columns([IDS[2], 77, 5]))
    (tmp_path / "schema.yaml").write_text(SCHEMA.to_yaml())
    users, out = tmp_path / "named.parquet", tmp_path / "c"
    pq.write_table(pa.table(user_columns(IDS)), users)
    refused = run("fit", tmp_path, "--preset", "demo", "--out", out)
    assert refused.exit_code == 1
    assert "has no column 'who'" not in refused.stderr  # indices can be assigned
    assert "has no column 'country', and there is no users file" in refused.stderr
    words = ("fit", tmp_path, "--preset", "demo", "--epochs", "1", "--out", out)
    assert run(*words, "--users", users).exit_code == 0
    assert not (out / checkpoint.USER_INDEX).exists()
    assert run("evaluate", out, tmp_path, "--users", users).exit_code == 0
