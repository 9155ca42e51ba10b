"""Broken input ends in a line with file, column and row, and leaves nothing half-written."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.compare.comparison import compare as compared
from feature_store import connect
from tests.batch.command import line, manifest, parts, run, score, scored
from tests.batch.inputs import make_lists, write
from tests.full_disk import files_of_at_most
from tests.service.world import World


def refused(world: World, source: Path, output: Path, *options: str) -> str:
    """The one line of a run that ends with code 1, and leaves nothing."""
    before = sorted(output.rglob("*")) if output.exists() else None
    done = score(world, source, output, *options)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("reading ")]
    assert (sorted(output.rglob("*")) if output.exists() else None) == before
    return line.removeprefix("error: ")


ROWS = {"user_id": [1, 2, 3], "item_id": [4, 5, 6]}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"user_id": [1]}, "has no column 'item_id' (it has: user_id)"),
        ({"item_id": [1]}, "has no column 'user_id' (it has: item_id)"),
        (ROWS | {"user_id": [1, None, 3]}, "row 1, column user_id: null"),
        (ROWS | {"user_id": [1, 2, -3]}, "row 2, column user_id: -3 is negative"),
        (ROWS | {"item_id": [4, None, 6]}, "row 1, column item_id: null"),
        (
            ROWS | {"item_id": pa.array([4, 5, 2**63], pa.uint64())},
            f"row 2, column item_id: {2**63} is beyond 63 bits",
        ),
        (ROWS | {"user_id": ["a", "b", "c"]}, "column user_id: holds string, not integers"),
        (ROWS | {"user_id": [1, 1.5, 2]}, "row 1, column user_id: 1.5 is not a whole number"),
        ({"user_id": [1, 2], "item_ids": [[4], None]}, "row 1, column item_ids: null"),
        ({"user_id": [1, 2], "item_ids": [[4], []]}, "row 1, column item_ids: an empty list"),
        ({"user_id": [1, 2], "item_ids": [[4], [5, -1]]}, "row 1, column item_ids: -1 is negative"),
        ({"user_id": [1, 2], "item_ids": [[4], [5, None]]}, "row 1, column item_ids: null"),
        (
            {"user_id": [1], "item_ids": [[4, 5]], "likes_level": [[1]]},
            "row 0, column likes_level: 1 values for 2 candidates",
        ),
        (ROWS | {"likes_level": [1, 99, 2]}, "row 1, column likes_level: 99 is above 10"),
    ],
)
def test_a_fault_is_one_line_with_its_place(
    world: World, tmp_path: Path, table: dict, said: str
) -> None:
    source = write(pa.table(table), tmp_path / "in.parquet")
    line = refused(world, source, tmp_path / "out")
    assert line.startswith(f"{source}: ")
    assert said in line


def test_files_that_are_cut_short_or_missing(world: World, tmp_path: Path) -> None:
    source = write(make_lists(world, 300).table(), tmp_path / "in.parquet")
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    assert f"{source}: not a readable parquet file" in refused(world, source, tmp_path / "out")
    (tmp_path / "empty").write_bytes(b"")
    assert "not a readable parquet file: it is empty" in refused(
        world, tmp_path / "empty", tmp_path / "out"
    )
    torn = bytearray(whole)
    torn[2000:4000] = bytes(2000)
    source.write_bytes(torn)
    assert f"{source}: column item_ids: cannot be read" in refused(world, source, tmp_path / "out")
    source.unlink()
    assert f"{source}: not a readable parquet file: no such" in refused(
        world, source, tmp_path / "out"
    )


def test_folders_that_cannot_be_read_or_written_are_said(world: World, tmp_path: Path) -> None:
    source, none = write(pa.table(ROWS), tmp_path / "in.parquet"), tmp_path / "none"
    none.mkdir()
    assert refused(world, none, tmp_path / "out") == f"{none}: the folder has no parquet files"
    (none / "notes.txt").write_text("rows are elsewhere")
    assert refused(world, none, tmp_path / "out").startswith(
        f"{none / 'notes.txt'}: not a readable parquet file"
    )
    assert "not a folder; give --output a folder" in refused(world, source, source)
    assert "not a folder; give --output a folder" in refused(world, source, source / "below")
    assert "--work" in refused(world, source, tmp_path / "out", "--work", str(source))
    assert "holds notes.txt, which is no part of this run" in refused(world, source, none)
    assert "/proc/out: " in refused(world, source, Path("/proc/out"))
    assert "/proc/out: " in refused(world, source, tmp_path / "out", "--metrics", "/proc/out/m")
    assert "at least 16000000 bytes" in refused(world, source, tmp_path / "out", "--memory", "15MB")


def test_what_a_run_writes_is_not_within_its_input(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(pa.table(ROWS), folder / "a.parquet")
    (tmp_path / "link").symlink_to(folder)
    for output in (folder, folder / "out", tmp_path / "link" / "out"):
        assert f"--output {output}: is within --input {folder}" in refused(world, folder, output)
    work = ("--work", str(folder / "work"))
    assert "--work" in refused(world, folder, tmp_path / "out", *work)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "not a readable parquet file" in refused(world, tmp_path / "loop", tmp_path / "out")


def test_a_full_disk_is_said_with_the_file_and_leaves_no_half_of_one(
    world: World, tmp_path: Path
) -> None:
    table = make_lists(world, 60).rows()
    source, out = write(table, tmp_path / "in.parquet"), tmp_path / "out"
    with files_of_at_most(50_000):
        said = refused(world, source, out)
    assert re.fullmatch(rf"{out}/_work/\w+/spill: File too large", said)


@pytest.mark.parametrize("command", ["score", "compare"])
def test_a_stdout_that_takes_no_more_is_said(world: World, tmp_path: Path, command: str) -> None:
    source, out = write(pa.table(ROWS), tmp_path / "in.parquet"), tmp_path / "out"
    scored(world, source, out)
    words = [*line(world, source, out), "--json"]
    if command == "compare":
        words = [*words[:3], "compare", str(out), str(out), "--input", str(source), "--json"]
    # Buffered, as it is without this variable: what is left is tried again when Python ends.
    buffered = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=buffered
        )
    assert done.returncode == 1
    assert done.stderr == "error: stdout: No space left on device\n"


def test_files_that_cannot_be_written_are_named_as_they_were_given(
    world: World, tmp_path: Path
) -> None:
    source, out = write(pa.table(ROWS), tmp_path / "in.parquet"), tmp_path / "out"
    assert refused(world, source, out, "--metrics", str(tmp_path)) == f"{tmp_path}: Is a directory"
    folder = f"--table-folder: {source} is not a directory"
    assert folder in refused(world, source, out, "--table-folder", str(source))
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    said = refused(world, source, out, "--table-folder", str(shared))
    assert said.startswith(f"--table-folder: {shared} is shared by all users")


def test_an_output_whose_name_is_not_utf_8_is_refused_in_one_line(
    world: World, tmp_path: Path
) -> None:
    source = write(pa.table(ROWS), tmp_path / "in.parquet")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert refused(world, source, Path(name)).endswith("not UTF-8; give another name")


def test_metrics_and_pictures_take_no_device_s_place(world: World, tmp_path: Path) -> None:
    source, out = write(pa.table(ROWS), tmp_path / "in.parquet"), tmp_path / "out"
    pipe, file, link = tmp_path / "pipe", tmp_path / "file", tmp_path / "link"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    scored(world, source, out, "--metrics", str(pipe))
    assert b"qin_batch_complete 1" in os.read(descriptor, 1 << 16)
    picture = ("--input", str(source), "--picture", str(pipe))
    assert run("compare", str(out), str(out), *picture).returncode == 0
    assert os.read(descriptor, 1 << 16).startswith(b"<svg")
    os.close(descriptor)
    link.symlink_to(file)
    scored(world, source, out, "--metrics", str(link))
    assert (link.readlink(), "qin_batch_complete 1" in file.read_text()) == (file, True)


@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        ({"item_id": pa.array([1.0])}, (), "column item_id: holds double, and in {} int64"),
        (
            {"note": pa.array(["a"])},
            ("--keep", "note"),
            "note: holds string, and in {} int64",
        ),
        ({"likes_level": pa.array([1])}, (), "{}: has no column 'likes_level'"),
    ],
)
def test_files_of_a_folder_that_differ_are_refused(
    world: World, tmp_path: Path, more: dict, options: tuple[str, ...], said: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    whole = {"user_id": [1], "item_id": [2], "note": [3]}
    first = write(pa.table(whole), folder / "a.parquet")
    write(pa.table(whole | more), folder / "b.parquet")
    assert said.format(first) in refused(world, folder, tmp_path / "out", *options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--item-column", "user_id"), "column user_id: given for both users and items"),
        (("--item-column", ""), "has no column ''"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(
    world: World, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    source = write(pa.table(ROWS), tmp_path / "in.parquet")
    assert said in refused(world, source, tmp_path / "out", *options)


def test_the_file_and_its_row_are_named_in_a_folder(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(pa.table(ROWS), folder / "a.parquet")
    write(pa.table(ROWS | {"item_id": [1, None, 2]}), folder / "b.parquet")
    assert refused(world, folder, tmp_path / "out").startswith(
        f"{folder / 'b.parquet'}: row 1, column item_id: null"
    )


def test_a_store_of_another_schema_is_refused(world: World, tmp_path: Path) -> None:
    schema = world.schema
    fewer = schema.model_copy(update={"item": schema.item[:-1]})

    async def make() -> None:
        store = await connect(f"lmdb://{tmp_path / 'other'}", fewer, create=True)
        await store.close()

    asyncio.run(make())
    other = replace(world, store=f"lmdb://{tmp_path / 'other'}")
    source = write(pa.table(ROWS), tmp_path / "in.parquet")
    assert schema.item[-1].name in refused(other, source, tmp_path / "out")


def test_a_store_that_does_not_answer_is_said(world: World, tmp_path: Path) -> None:
    gone = replace(world, store="redis://127.0.0.1:1")
    source = write(pa.table(ROWS), tmp_path / "in.parquet")
    assert "127.0.0.1:1" in refused(gone, source, tmp_path / "out")


@pytest.mark.parametrize("layout", ["rows", "lists"])
def test_rejected_rows_have_a_file_of_their_own(world: World, tmp_path: Path, layout: str) -> None:
    item = world.ids[:4].tolist()
    users = [1, None, 2, -7]
    if layout == "rows":
        table = pa.table({"user_id": users, "item_id": item})
    else:
        table = pa.table({"user_id": users, "item_ids": [[i] for i in item]})
    source = write(table, tmp_path / "in.parquet")
    assert "row 3, column user_id: -7 is negative; more than --max-rejects 1 rows" in refused(
        world, source, tmp_path / "out", "--max-rejects", "1"
    )
    found = scored(world, source, tmp_path / "out", "--max-rejects", "2", code=3)
    assert found["user_status"].to_pylist() == ["known", "rejected", "known", "rejected"]
    scores = found["score" if layout == "rows" else "scores"].to_pylist()
    scores = [score[0] if isinstance(score, list) else score for score in scores]
    assert [s is None for s in scores] == [False, True, False, True]
    lines = (tmp_path / "out" / "_rejects.jsonl").read_bytes().splitlines()
    reasons = [orjson.loads(line) for line in lines]
    assert [(r["row"], r["column"], r["reason"]) for r in reasons] == [
        (1, "user_id", "null"),
        (3, "user_id", "-7 is negative"),
    ]
    assert manifest(tmp_path / "out")["input"]["rejected_rows"] == 2


def test_a_user_with_too_many_rows_is_rejected_with_the_reason(
    world: World, tmp_path: Path
) -> None:
    users = np.repeat([1, 2], [5, 2])
    source = write(pa.table({"user_id": users, "item_id": world.ids[:7]}), tmp_path / "in.parquet")
    found = scored(world, source, tmp_path / "out", "--max-candidates", "4", code=3)
    assert found["user_status"].to_pylist() == ["rejected"] * 5 + ["known"] * 2
    first = orjson.loads((tmp_path / "out" / "_rejects.jsonl").read_bytes().splitlines()[0])
    assert first["reason"] == "5 candidates, above --max-candidates 4"


def test_a_list_that_is_too_long_is_rejected_without_its_elements(
    world: World, tmp_path: Path
) -> None:
    ids = world.ids[:5].tolist()
    table = pa.table(
        {
            "user_id": [1, 2, 3],
            "item_ids": [ids[:3], [-1, *ids], ids[:4]],
            "likes_level": [[1] * 3, [2] * 6, [3] * 4],
        }
    )
    source = write(table, tmp_path / "in.parquet")
    options = ("--max-candidates", "4")
    reason = "6 candidates, above --max-candidates 4"
    line = refused(world, source, tmp_path / "out", *options)
    assert f"row 1, column item_ids: {reason}; " in line
    found = scored(world, source, tmp_path / "out", *options, "--max-rejects", "1", code=3)
    assert found["item_ids"].to_pylist() == [ids[:3], None, ids[:4]]
    assert found["user_status"].to_pylist() == ["known", "rejected", "known"]
    assert [len(scores) for scores in found["scores"].to_pylist()] == [3, 0, 4]
    (rejected,) = (tmp_path / "out" / "_rejects.jsonl").read_bytes().splitlines()
    assert orjson.loads(rejected)["reason"] == reason
    few = compared(str(tmp_path / "out"), str(tmp_path / "out"), str(source)).facts()
    assert (few["candidates"], few["scored_by_both"]) == (13, 7)


def test_an_input_without_rows_has_a_manifest(world: World, tmp_path: Path) -> None:
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64())])
    pq.write_table(schema.empty_table(), tmp_path / "in.parquet")
    done = score(world, tmp_path / "in.parquet", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert parts(tmp_path / "out") == []
    assert manifest(tmp_path / "out")["parts"] == []
