import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests import programs
from training.__main__ import app
from training.evaluation.evaluate import best_auc

SIZES = ["--train", "2000", "--valid", "400", "--test", "400", "--items", "100", "--history", "8"]


def training(*words: str) -> subprocess.CompletedProcess[str]:
    return programs.run("training", *words)


def in_process(*words: str) -> Result:
    """The same without a process of its own: nothing waits for torch to be imported."""
    before = torch.get_num_threads()
    try:
        return CliRunner().invoke(app, words)
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made = training("synthesize", str(folder), *SIZES, "--json")
    assert made.returncode == 0, made.stderr
    assert 0.7 < json.loads(made.stdout)["best_auc_valid"] < 1
    return folder


def test_from_data_to_figures(data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "c")
    fitted = training("fit", str(data), "--preset", "demo", "--epochs", "2", "--out", out, "--json")
    assert fitted.returncode == 0, fitted.stderr
    assert len(json.loads(fitted.stdout)["epochs"]) == 2
    evaluated = training("evaluate", out, str(data), "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    figures = json.loads(evaluated.stdout)
    assert figures["rows"] == 400
    assert figures["static_levels"] == []
    assert "warning" not in fitted.stderr + evaluated.stderr
    best = json.loads((data / "truth.json").read_text())["best_auc_valid"]
    assert figures["share_of_the_possible"] == (figures["auc"] - 0.5) / (best - 0.5)
    assert (tmp_path / "c" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    plot = ["--plot", str(tmp_path / "none" / "plot.png")]
    unplotted = in_process("evaluate", out, str(data), "--json", *plot)
    assert unplotted.exit_code == 1
    assert "plot.png: No such file or directory" in unplotted.stderr
    assert json.loads(unplotted.stdout) == figures  # not lost with the picture


def test_threads_beyond_what_a_machine_can_start_are_refused() -> None:
    refused = in_process("fit", "data", "--out", "c", "--threads", "100000")
    assert refused.exit_code == 2
    assert "or equal to 1024" in refused.stderr


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"best_auc_valid": null}', "{}", "\xff"])
def test_a_truth_of_another_tool_is_passed_over(text: str, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(text, "latin-1")
    assert best_auc(tmp_path) is None


def test_static_levels_of_data_that_was_not_synthesized_are_a_warning(
    data: Path, tmp_path: Path
) -> None:
    out, own = str(tmp_path / "c"), str(tmp_path / "data")
    shutil.copytree(data, own, ignore=shutil.ignore_patterns(".cache", "truth.json"))
    fitted = training("fit", own, "--preset", "demo", "--epochs", "1", "--out", out)
    assert fitted.returncode == 0, fitted.stderr
    evaluated = training("evaluate", out, own, "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    static = [level["feature"] for level in json.loads(evaluated.stdout)["static_levels"]]
    assert static == ["likes_level", "views_level"]
    assert "warning: likes_level: one level per item, from the rows, in rows" in evaluated.stderr


def test_the_recipe_is_printed_at_start_and_a_checkpoint_repeats_its_run(
    data: Path, tmp_path: Path
) -> None:
    words = ("--preset", "demo", "--set", "sizes.rows=3", "--set", "epochs=9", "--epochs", "1")
    first = in_process("fit", str(data), *words, "--threads", "1", "--out", str(tmp_path / "a"))
    assert first.exit_code == 0, first.output
    shown = in_process("recipe", "show", str(tmp_path / "a"))
    assert shown.stdout in first.stderr
    assert re.search(r"^  rows: 3 .*^epochs: 1 ", shown.stdout, re.DOTALL | re.MULTILINE)
    (tmp_path / "copy.yaml").write_text(shown.stdout)
    words = ("fit", str(data), "--threads", "1", "--recipe")
    again = training(*words, str(tmp_path / "a"), "--out", str(tmp_path / "b"))
    assert again.returncode == 0, again.stderr
    copied = in_process(*words, str(tmp_path / "copy.yaml"), "--out", str(tmp_path / "c"))
    assert copied.exit_code == 0, copied.output
    first_weights, *others = (
        (tmp_path / out / "model.safetensors").read_bytes() for out in ("a", "b", "c")
    )
    assert others == [first_weights, first_weights]


def test_a_line_is_whole_where_output_is_no_terminal(tmp_path: Path) -> None:
    folder = tmp_path / ("a-[/b]-long-name-" * 8)
    made = training("synthesize", str(folder), *SIZES)
    assert any(
        line.startswith(f"{folder}: 2,000 training rows") and "on valid: 0." in line
        for line in made.stderr.splitlines()
    ), made.stderr


def test_what_is_missing_is_one_line_and_not_a_traceback(data: Path, tmp_path: Path) -> None:
    for words in (
        ("fit", str(tmp_path), "--out", str(tmp_path / "c")),
        ("fit", str(data), "--out", str(tmp_path / "c"), "--learning-rate", "nan"),
        ("fit", str(data), "--out", str(tmp_path / "c"), "--set", "sizes.rowz=3"),
        ("recipe", "show", str(tmp_path / "nothing.yaml")),
        ("evaluate", str(tmp_path / "nothing"), str(data)),
        ("synthesize", str(tmp_path / "new"), "--history", "999999"),
        ("synthesize", "/dev/null/out"),
    ):
        failed = in_process(*words)
        assert failed.exit_code == 1
        assert isinstance(failed.exception, SystemExit)  # else a process prints a traceback
        assert "error:" in failed.stderr
        assert "Traceback" not in failed.stderr
        for words_of_a_library in ("Errno", "Input should", "Value error", "pydantic", "('"):
            assert words_of_a_library not in failed.stderr
    process = training("recipe", "show", str(tmp_path / "nothing.yaml"))
    assert process.returncode == 1
    assert process.stderr.startswith("error:")
    assert "Traceback" not in process.stderr


def test_data_of_one_class_without_a_training_file_on_another_cache(
    data: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    folder, cache, out = tmp_path / "data", tmp_path / "cache", str(tmp_path / "c")
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns(".cache"))
    train = pq.read_table(folder / "train.parquet")
    clicked = train.filter(train["label"].to_numpy() == 1)
    (folder / "train.parquet").unlink()
    (folder / "train.parquet").mkdir()  # a folder of parts
    pq.write_table(clicked.slice(0, 40), folder / "train.parquet" / "part-0.parquet")
    pq.write_table(clicked.slice(40, 40), folder / "train.parquet" / "part-1.parquet")
    (folder / "train.parquet" / "_SUCCESS").touch()
    words = ("--preset", "demo", "--epochs", "1", "--out", out, "--cache", str(cache))
    fitted = training("fit", str(folder), *words)
    assert fitted.returncode == 0, fitted.stderr
    assert "train.parquet: column label: 1 in every row" in fitted.stderr
    shutil.rmtree(folder / "train.parquet")
    evaluated = in_process("evaluate", out, str(folder), "--cache", str(cache), "--json")
    assert evaluated.exit_code == 0, evaluated.output
    slices = [part["slice"] for part in json.loads(evaluated.stdout)["slices"]]
    assert slices
    assert "warm item" not in slices
    assert any(cache.iterdir())
    assert not (folder / ".cache").exists()


def test_a_home_that_cannot_be_written_brings_no_advice_of_a_library() -> None:
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MPL", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", "import training.evaluation.plots, model_export.bench.picture"],
        env={**environment, "HOME": "/dev/null"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
