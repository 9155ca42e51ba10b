"""Errors of the commands that read an encoder or a recipe: one line each, and no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.text.rewritten import rewrite
from text.__main__ import app
from text.cli import console as text_console
from text.corpus.corpus import Corpus
from training.cli import console as training_console

NONE = "not a checkpoint of an encoder: no config.json; `python -m text fit` or `import-jina`"


def said(*arguments: object) -> str:
    """The line that a refused command ends with; it comes before a recipe that would be run."""
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(ended.exception, SystemExit), ended.exception
    assert ended.exit_code == 1
    assert "sizes:" not in ended.stderr.splitlines()
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def fitted(corpus: Corpus, out: Path, *options: object) -> str:
    return said("fit", corpus.folder, "--preset=tiny", f"--out={out}", *options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pairs:\n  steps: many\n", "line 2: pairs.steps: many: not an integer"),
        (
            "pairs:\n  stepz: 3\n",
            "line 2: pairs.stepz: 3: unknown name; the nearest is pairs.steps",
        ),
        ("masked: {share: 1.5}\n", "line 1: masked.share: 1.5: must be below 1"),
        ("masked: {share: .nan}\n", "line 1: masked.share: .nan: not a number"),
        ("pairs: 5\n", "line 1: pairs: 5: pairs is a group of pairs.steps"),
        ("sizes: {hidden: 10, heads: 3}\n", "sizes: hidden 10 is no multiple of heads 3"),
        ("pairs: [\n", "not YAML: line 2"),
    ],
)
def test_a_bad_recipe_is_named_with_its_line(
    corpus: Corpus, tmp_path: Path, content: str, message: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(content)
    line = fitted(corpus, tmp_path / "out", f"--recipe={recipe}")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 48}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, NONE),
        (cut("model.safetensors"), "model.safetensors: damaged or truncated"),
        (cut("config.json"), "config.json: "),
        (cut("tokenizer.json"), "tokenizer.json: not a tokenizer"),
        (cut("training.json"), "training.json: "),
        (wider, "embeddings.word_embeddings.weight has shape (280, 24), not (280, 48)"),
    ],
)
def test_a_checkpoint_that_is_none_or_damaged_is_named_by_every_command(
    checkpoint: Path,
    corpus: Corpus,
    tmp_path: Path,
    change: Callable[[Path], None],
    message: str,
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "encoder")
    change(folder)
    ablation = ("ablate", corpus.folder, "--preset=tiny", f"--out={tmp_path / 'ablation'}")
    for line in (
        said("evaluate", folder, corpus.folder),
        said("build", folder, f"--out={tmp_path / 'bundles'}"),
        said(*ablation, "--claims=similarity", f"--start={folder}"),
        fitted(corpus, tmp_path / "out", f"--start={folder}"),
        fitted(corpus, tmp_path / "out", f"--teacher={folder}", "--set=distilled.steps=1"),
    ):
        assert line.startswith(str(folder))
        assert message in line
    assert not (tmp_path / "out").exists()


def test_a_start_of_other_sizes_is_refused_with_the_settings(
    checkpoint: Path, corpus: Corpus, tmp_path: Path
) -> None:
    line = fitted(corpus, tmp_path / "out", f"--start={checkpoint}")
    assert line.startswith(f"{checkpoint}: of other sizes than the recipe; --set sizes.vocabulary")


def test_what_evaluate_cannot_read_or_write_is_named_before_it_encodes(
    checkpoint: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("text.encoder.vectors.TorchEncoder.encode", None)  # would be a TypeError
    (tmp_path / "file").write_text("")
    command = ("evaluate", checkpoint, corpus.folder)
    assert said(*command, f"--report={tmp_path / 'file'}") == f"{tmp_path / 'file'}: File exists"
    assert "wordsim353.tsv: No such file" in said(*command, f"--judged={tmp_path}")
    assert "unknown peer e6" in said(*command, "--peer=e6")
    assert "nowhere: no corpus" in said("evaluate", checkpoint, tmp_path / "nowhere")


def test_paths_that_are_no_corpus_or_checkpoint_are_named(corpus: Corpus, tmp_path: Path) -> None:
    table = corpus.folder / "texts.parquet"
    line = said("fit", table, f"--out={tmp_path / 'out'}")
    assert line == f"{table}: not a folder; give the corpus's folder"
    imported = (f"--out={tmp_path / 'out'}",)
    line = said("import-jina", table, *imported)
    assert line == f"{table}: not a folder; give a published checkpoint's"
    line = said("import-jina", corpus.folder, *imported)
    assert line.startswith(f"{corpus.folder}: not a checkpoint's folder: neither config.json nor")


def test_a_corpus_without_items_of_the_tasks_is_named(
    checkpoint: Path, corpus: Corpus, tmp_path: Path
) -> None:
    folder = shutil.copytree(corpus.folder, tmp_path / "corpus")
    rows = pq.read_table(folder / "graded.parquet").slice(0, 0)
    rewrite(folder, "graded", rows)
    line = said("evaluate", checkpoint, folder, "--tasks=similarity", f"--report={tmp_path / 'r'}")
    assert line == f"{folder}: nothing to evaluate by similarity"


@pytest.mark.parametrize(
    "command",
    [
        ["bench", "checkpoint", "corpus", "--longest", "65537"],
        ["cold-items", "bundle", "corpus", "--out", "out", "--size", "4097"],
    ],
)
def test_a_number_beyond_what_is_served_is_refused_at_once(command: list[str]) -> None:
    """A benchmark of longer texts than a bundle may have had no end."""
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert command[-2] in done.output


def test_what_memory_does_not_hold_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for room in (text_console, training_console):
        with pytest.raises(SystemExit), room.exit_on_error():
            np.empty(2**50)
        assert "error: not enough memory: Unable to allocate" in capsys.readouterr().err
