"""User ids that are texts: rows, users files and found indices, joined by text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_store.__main__ import app as store_app
from feature_store.parquet.columns import DataFileError
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds
from training import checkpoint
from training.__main__ import app
from training.data import user_ids
from training.data.dataset import open_data, open_held_out
from training.data.rows import Rows
from training.data.user_ids import UserTexts, check_agreement

TINY = ("--train", "4000", "--valid", "1000", "--test", "40", "--items", "60", "--history", "6")
USERS_FILE = "user_info.parquet"
Convert = Callable[[list[int]], pa.Array]


def uuid_of(user: int) -> UUID:
    return uuid5(NAMESPACE_URL, str(user))


def strings(users: list[int]) -> pa.Array:
    return pa.array([str(uuid_of(user)) for user in users])


def uuids(users: list[int]) -> pa.Array:
    return pa.array([uuid_of(user).bytes for user in users], pa.binary(16))


def run(*words: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def rewrite(file: Path, convert: Convert) -> None:
    table = pq.read_table(file)
    at = table.column_names.index("user_id")
    ids = convert(table["user_id"].to_pylist())
    pq.write_table(table.set_column(at, "user_id", ids), file)


@pytest.fixture(scope="module")
def numeric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numeric")
    run("synthesize", folder, "--preset", "taste", *TINY)
    return folder


@pytest.fixture
def texts(numeric: Path, tmp_path: Path) -> Path:
    """The same data by text ids."""
    folder = tmp_path / "data"
    shutil.copytree(numeric, folder, ignore=shutil.ignore_patterns(".cache"))
    for name in ("train", "valid", "test"):
        rewrite(folder / f"{name}.parquet", strings)
    rewrite(folder / USERS_FILE, strings)
    return folder


def schema_of(folder: Path) -> FeatureSchema:
    return FeatureSchema.read(folder / "schema.yaml")


def of_rows(rows: Rows, name: str) -> list[int]:
    assert rows.users is not None
    found: list[int] = rows.users.tensors[name][rows.users.row.astype(np.int64)].tolist()
    return found


@pytest.mark.parametrize("convert", [strings, uuids])
def test_users_of_text_ids_are_those_of_integer_ids(
    numeric: Path, texts: Path, convert: Convert
) -> None:
    shutil.copy(numeric / USERS_FILE, texts / USERS_FILE)
    rewrite(texts / USERS_FILE, convert)
    opened = [open_data(folder, schema_of(folder)) for folder in (numeric, texts)]
    for name in ("user_index", "country"):
        for split in ("train", "valid"):
            first, second = (of_rows(getattr(data, split), name) for data in opened)
            assert first == second
            assert any(first)


def test_text_ids_train_and_evaluate_as_integers_do(
    numeric: Path, texts: Path, tmp_path: Path
) -> None:
    figures = []
    for folder in (numeric, texts):
        out = tmp_path / f"c-{folder.name}"
        run("fit", folder, "--preset", "demo", "--epochs", "1", "--out", out)
        figures.append(run("evaluate", out, folder))
    users = [
        [(part["slice"], part["rows"]) for part in found["slices"] if "user" in part["slice"]]
        for found in figures
    ]
    assert users[0] == users[1]
    assert [name for name, _ in users[0]] == ["known user", "new user"]
    for name in ("auc", "grouped_auc", "logloss"):  # users of a batch are in another order
        assert figures[0][name] == pytest.approx(figures[1][name], abs=1e-3)


def test_indices_found_for_text_ids_are_a_users_file_that_a_mapped_store_loads(
    texts: Path, tmp_path: Path
) -> None:
    users = pq.read_table(texts / USERS_FILE)
    pq.write_table(users.drop_columns(["user_index"]), texts / USERS_FILE)
    out = tmp_path / "c"
    run("fit", texts, "--preset", "demo", "--epochs", "1", "--out", out)
    found = pq.read_table(out / checkpoint.USER_INDEX)
    trained = sorted(set(pq.read_table(texts / "train.parquet")["user_id"].to_pylist()))
    indices = dict(zip(*(found[name].to_pylist() for name in found.column_names), strict=True))
    assert indices.keys() == set(users["user_id"].to_pylist())
    assert {user: i for user, i in indices.items() if i} == {
        u: i + 1 for i, u in enumerate(trained)
    }
    valid, _ = open_held_out(texts, schema_of(texts), index=out / checkpoint.USER_INDEX)
    asked = pq.read_table(texts / "valid.parquet")["user_id"].to_pylist()
    assert of_rows(valid, "user_index") == [
        trained.index(user) + 1 if user in trained else 0 for user in asked
    ]

    url, store = f"lmdb://{tmp_path / 'store'}", CliRunner()
    load = ["load", url, "--schema", str(texts / "schema.yaml"), "--ids", "mapped", "--users"]
    files = [str(texts / USERS_FILE), "--users", str(out / checkpoint.USER_INDEX), "--json"]
    done = store.invoke(store_app, [*load, *files])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["users"] == len(users)
    new = next(user for user, i in indices.items() if not i)
    for user, index in ((trained[2], 3), (new, 0)):
        kept = store.invoke(store_app, ["get-user", url, user, "--json"])
        assert kept.exit_code == 0, kept.output
        assert f'"user_index":{index}' in kept.stdout.replace(" ", "")


@pytest.mark.parametrize("file", [USERS_FILE, "valid.parquet", "train.parquet"])
def test_texts_beside_integers_are_refused_in_one_line(
    numeric: Path, texts: Path, file: str
) -> None:
    for users in (True, False):
        shutil.copy(numeric / file, texts / file)
        if not users:
            (texts / "schema.yaml").write_text((texts / "plain.yaml").read_text())
            if file == USERS_FILE:
                continue
        refused = CliRunner().invoke(
            app, ["fit", str(texts), "--preset", "demo", "--out", str(texts / "c")]
        )
        assert refused.exit_code == 1
        (line,) = [line for line in refused.stderr.splitlines() if "error:" in line]
        assert "column user_id: holds " in line
        assert line.endswith("write both as one kind")


def test_an_index_named_user_id_cannot_be_text(texts: Path) -> None:
    text = (texts / "schema.yaml").read_text().replace("user_index", "user_id")
    (texts / "schema.yaml").write_text(text)
    for file in (USERS_FILE, "train.parquet"):
        with pytest.raises(DataFileError, match=rf"{file}.*feature user_id is an integer, the ind"):
            open_data(texts, schema_of(texts))
        pq.write_table(pa.table({"user_id": [1], "country": [1]}), texts / USERS_FILE)


def test_a_text_that_is_no_id_is_refused_by_row(texts: Path) -> None:
    rewrite(texts / "valid.parquet", lambda users: pa.array(["", *map(str, users[1:])]))
    with pytest.raises(DataFileError, match=r"valid\.parquet.* 0 characters instead of 1 to 128"):
        open_data(texts, schema_of(texts))


def test_item_ids_that_are_texts_are_refused_with_the_remedy(texts: Path) -> None:
    rows = pq.read_table(texts / "train.parquet")
    at = rows.column_names.index("item_id")
    ids = rows["item_id"].cast(pa.string())
    pq.write_table(rows.set_column(at, "item_id", ids), texts / "train.parquet")
    with pytest.raises(DataFileError, match=r"column item_id: .*`feature_store ids` makes"):
        open_data(texts, schema_of(texts))


def test_two_texts_of_one_number_are_refused(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Colliding(TextIds):
        def bulk_numbers(self, texts: Any) -> Any:
            return super().bulk_numbers(texts) >> 52  # 2,048 numbers

    monkeypatch.setattr(user_ids, "TEXT_IDS", Colliding(b"key"))
    with pytest.raises(DataFileError, match=r"column user_id '.*' has the number \d+, which is"):
        open_data(texts, schema_of(texts))
    one, other = (UserTexts.of({7: text, 8: "same"}) for text in ("a", "b"))
    check_agreement("train", one, "valid", one)
    with pytest.raises(DataFileError, match="valid: column user_id 'b' has the number 7, which is"):
        check_agreement("train", one, "valid", other)
