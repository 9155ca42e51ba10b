"""``ids`` of ``python -m feature_store``: signed, hashed, string and UUID ids as the store's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.parquet.id_numbers import IdNumbers
from tests.feature_store.parquet.test_load import run

SIGN = 2**63
SIGNED = [-1, -(2**62), 0, 5, 2**63 - 2]
UUIDS = [UUID(int=7), UUID(int=2**127 + 9)]


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def column(path: Path, name: str) -> list[Any]:
    found: list[Any] = pq.read_table(path).column(name).to_pylist()
    return found


def sha(text: str) -> int:
    """As a client computes it."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % SIGN


def test_signed_ids_lose_their_sign_bit_in_every_column(tmp_path: Path) -> None:
    seq = pa.array([[0, 0, -1], [5], None, [], [2**63 - 2, -(2**62)]], pa.list_(pa.int64()))
    source = parquet(tmp_path / "train.parquet", item_id=SIGNED, item_seq=seq, clicks=list("abcde"))
    result = run("ids", source, "--column", "item_id", "--column", "item_seq", "--json",
                 "--into", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == {"ids": 5, "outside": 2, "collisions": 0, "padding": 0, "examples": []}
    written = tmp_path / "out" / "train.parquet"
    assert column(written, "item_id") == [2**63 - 1, 2**62 + 0, 0, 5, 2**63 - 2]
    assert column(written, "item_seq") == [
        [0, 0, 2**63 - 1], [5], None, [], [2**63 - 2, 2**62],
    ]  # fmt: skip
    assert column(written, "clicks") == list("abcde")


def test_collisions_are_counted_over_all_files_and_nothing_is_written(tmp_path: Path) -> None:
    one = parquet(tmp_path / "a.parquet", user_id=[-1, 3, 3])
    two = parquet(tmp_path / "b.parquet", user_id=pa.array([2**63 - 1, 2**63 + 3], pa.uint64()))
    result = run("ids", one, two, "--column", "user_id", "--json", "--into", tmp_path / "out")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert (report["ids"], report["outside"], report["collisions"]) == (4, 2, 2)
    assert "-1" in result.stderr
    assert "--method sha256" in result.stderr
    assert not (tmp_path / "out").exists()
    hashed = run("ids", one, two, "--column", "user_id", "--method", "sha256", "--json")
    assert (hashed.exit_code, json.loads(hashed.stdout)["collisions"]) == (0, 0)


def test_an_id_that_would_become_padding_is_counted(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", item_id=[-SIGN, 4])
    result = run("ids", source, "--column", "item_id", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["padding"] == 1


def test_strings_and_uuids_are_hashed_as_any_client_can(tmp_path: Path) -> None:
    names = pa.array(["ann", "b/7"]).dictionary_encode()
    uuids = pa.array([u.bytes for u in UUIDS], pa.uuid())
    source = parquet(
        tmp_path / "a.parquet", user=names, key=uuids, seq=[["", "ann"], [None, "b/7"]]
    )
    arguments = [name for n in ("user", "key", "seq") for name in ("--column", n)]
    result = run("ids", source, *arguments, "--method", "sha256", "--into", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = tmp_path / "out" / "a.parquet"
    assert column(written, "user") == [sha("ann"), sha("b/7")]
    assert column(written, "key") == [sha(str(u)) for u in UUIDS]
    assert column(written, "seq") == [[0, sha("ann")], [None, sha("b/7")]]


def test_a_text_of_more_digits_than_an_int_may_have_is_counted_as_outside(tmp_path: Path) -> None:
    ids = ["9" * 5000, str(2**63), str(2**63 - 1), "ann"]
    source = parquet(tmp_path / "a.parquet", user=ids)
    result = run("ids", source, "--column", "user", "--method", "sha256", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["outside"] == 3


def test_folders_of_parts_are_read_and_copied_part_by_part(tmp_path: Path) -> None:
    days = tmp_path / "days"
    for day, users in {"01": [-1, 4], "02": [-3]}.items():
        (days / f"dt={day}").mkdir(parents=True)
        other = pa.array(["a"] * len(users)).dictionary_encode()
        parquet(days / f"dt={day}" / "part-0.parquet", user_id=users, clicks=other)
        (days / "_SUCCESS").touch()
    (tmp_path / "shops" / "user_id=x").mkdir(parents=True)
    parquet(tmp_path / "shops" / "user_id=x" / "p.parquet", item=pa.array([[7]]))
    result = run("ids", days, "--column", "user_id", "--json", "--into", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (json.loads(result.stdout)["ids"], json.loads(result.stdout)["outside"]) == (3, 2)
    first = pq.read_table(tmp_path / "out" / "days" / "dt=01" / "part-0.parquet", partitioning=None)
    assert first.column("user_id").to_pylist() == [SIGN - 1, 4]
    assert pa.types.is_dictionary(first.schema.field("clicks").type)  # no id: kept as it was
    assert column(tmp_path / "out" / "days" / "dt=02" / "part-0.parquet", "user_id") == [SIGN - 3]
    options = ("--column", "user_id", "--method", "sha256", "--into", tmp_path / "out")
    assert run("ids", tmp_path / "shops", *options).exit_code == 0
    copied = pq.read_table(
        tmp_path / "out" / "shops" / "user_id=x" / "p.parquet", partitioning=None
    )
    assert copied.to_pydict() == {"item": [[7]], "user_id": [sha("x")]}  # of the folder's name


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (["a"], [], "use --method sha256"),
        ([1.5], [], "column user_id: holds double"),
        ([1], ["--column", "other"], "no given file has a column 'other'"),
    ],
)
def test_what_is_no_id_is_refused_with_file_and_column(
    tmp_path: Path, values: list[Any], options: list[str], message: str
) -> None:
    source = parquet(tmp_path / "a.parquet", user_id=values)
    result = run("ids", source, "--column", "user_id", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert str(source) in result.stderr


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", user_id=[-1])
    result = run("ids", source, "--column", "user_id", "--into", tmp_path)
    assert result.exit_code == 1
    assert "exists; choose another folder" in result.stderr
    assert column(source, "user_id") == [-1]


def test_a_copy_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parquet(tmp_path / "a.parquet", user_id=[-1, 7])
    method, calls = IdNumbers._mapped, iter([True])

    def fail(*arguments: Any) -> Any:
        if next(calls, False):
            raise OSError(28, "No space left on device")
        return method(*arguments)

    monkeypatch.setattr(IdNumbers, "_mapped", fail)
    options = ("ids", source, "--column", "user_id", "--into", tmp_path / "out")
    assert run(*options).exit_code == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert run(*options).exit_code == 0
    assert column(tmp_path / "out" / "a.parquet", "user_id") == [SIGN - 1, 7]
