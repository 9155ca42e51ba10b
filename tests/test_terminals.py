"""Every command prints on a terminal that is not UTF-8; its output does not decide its status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import yaml

from tests.rooms import TOP

WITH_RECIPES = ("text", "training")
LOCALE = os.environ | {"LC_ALL": "C", "COLUMNS": "200"}
NO_UTF8 = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # the locale's encoding for files too
PRINTED_LAST = """
import atexit, runpy, sys
atexit.register(lambda: print("\\u0394p \\udcff"))
sys.argv = [sys.argv[1], "--help"]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


SCHEMA = {
    "name": "Größe in µm",
    "history_length": 2,
    "identity": "item_id",
    "item": [{"name": "item_id", "kind": "categorical", "vocabulary": 5, "width": 4}],
    "context": [{"name": "level", "kind": "categorical", "vocabulary": 3, "width": 4}],
}


@pytest.mark.parametrize(
    ("room", "encoding"), [*((room, "ascii") for room in TOP), ("feature_store", "latin-1")]
)
def test_a_character_that_the_terminal_lacks_is_escaped(room: str, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTED_LAST, room],
        capture_output=True,
        env=LOCALE | {"PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"\n\\u0394p \\udcff\n")


def test_a_bundle_that_is_published_exits_0(tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_bytes(orjson.dumps(SCHEMA))
    build = ["build", "--random", "--schema", "schema.yaml", "--out", "models", "--version", "1"]
    verify, info = ["verify", "models/1"], ["info", "models/1"]
    commands = [(build, "ascii"), (verify, "ascii"), (info, "ascii"), (info, "latin-1")]
    for command, encoding in commands:
        done = subprocess.run(
            [sys.executable, "-m", "model_export", *command],
            capture_output=True,
            cwd=tmp_path,
            env=LOCALE | NO_UTF8 | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path.cwd())},
        )
        assert done.returncode == 0, done.stderr
        if command == info:
            assert "parity" in done.stdout.decode(encoding)
            assert "\\u0394p" in done.stdout.decode(encoding)


def test_a_folder_in_square_brackets_is_printed_as_it_is(tmp_path: Path) -> None:
    models, schema = tmp_path / "a[" / "b]", tmp_path / "schema.yaml"
    schema.write_text(yaml.safe_dump(SCHEMA))
    for command in (
        ["build", "--random", "--schema", schema, "--version", "1", "--out", models],
        ["info", models / "1"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "model_export", *map(str, command)],
            capture_output=True,
            text=True,
            env=LOCALE,
        )
        assert done.returncode == 0, done.stderr
        assert "a[/b]/1" in done.stdout.replace("\n", "")


HOSTILE = "\x1b[2J\x07\x9b31m\u202e"


@pytest.mark.parametrize(
    "command",
    [
        (
            "feature_store",
            "load",
            "lmdb://{0}/store",
            "--schema",
            "{0}/schema.yaml",
            "--items",
            "x",
        ),
        ("training", "recipe", "show", "{0}/schema.yaml"),
        ("model_export", "build", "--random", "--schema", "{0}/schema.yaml", "--out", "{0}/out"),
    ],
    ids=lambda command: command[0],
)
def test_names_of_a_file_cannot_steer_the_terminal(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump({f"{HOSTILE}n": "1"}))
    given = [part.format(tmp_path) for part in command]
    done = subprocess.run(
        [sys.executable, "-m", *given], capture_output=True, env=LOCALE | {"PYTHONUTF8": "1"}
    )
    error = done.stderr.decode()
    assert done.returncode == 1
    assert not set(HOSTILE[0] + HOSTILE[4:6] + HOSTILE[-1]) & set(error)
    assert r"\x1b[2J\x07\x9b31m\u202en" in error


@pytest.mark.parametrize("room", TOP)
def test_a_path_that_is_not_utf8_is_named_before_any_work(room: str, tmp_path: Path) -> None:
    """Neither parquet nor graphs nor weights can be opened by it."""
    folder = os.fsencode(tmp_path) + b"/od\xffd"
    command = [sys.executable, "-m", room, "build", folder, "--out", folder]
    done = subprocess.run(command, capture_output=True, env=LOCALE)
    assert done.returncode == 2
    assert b"od\\udcffd' is not UTF-8; rename the file or folder" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("room", "command"),
    [*((room, ("--help",)) for room in TOP), *((r, ("recipe", "show")) for r in WITH_RECIPES)],
)
def test_what_cannot_be_printed_is_an_error_of_one_line(
    room: str, command: tuple[str, ...]
) -> None:
    """As where stdout is a file on a full disk."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", room, *command], stdout=full, stderr=subprocess.PIPE, env=LOCALE
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "error: stdout: No space left on device\n"


def test_a_command_needs_no_stdout() -> None:
    command = f"exec {sys.executable} -m text recipe show >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, env=LOCALE)
    assert (done.returncode, done.stderr) == (0, b"")
