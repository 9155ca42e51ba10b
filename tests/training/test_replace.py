"""A finished checkpoint in ``--out``: a warning names what another run replaces."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from tests.training.test_cli import SIZES
from training.__main__ import app


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def fit(tmp_path: Path) -> tuple[str | Path, ...]:
    """The words of a run that is finished in ``tmp_path / "c"``."""
    data = tmp_path / "data"
    assert run("synthesize", data, *SIZES).exit_code == 0
    words = ("fit", data, "--preset", "demo", "--epochs", "1", "--out", tmp_path / "c")
    assert run(*words).exit_code == 0
    (tmp_path / "c" / "mark").touch()
    return words


def test_the_same_run_replaces_its_checkpoint_without_a_warning(
    fit: tuple[str | Path, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = run(*fit)
    assert done.exit_code == 0, done.output
    assert not [m for m in caplog.messages if "training replaces" in m]
    assert not (tmp_path / "c" / "mark").exists()


@pytest.mark.parametrize("differs", ["recipe", "schema", "data", "no record", "no checkpoint"])
def test_what_another_run_replaces_is_named_in_a_warning(
    fit: tuple[str | Path, ...], tmp_path: Path, differs: str, caplog: pytest.LogCaptureFixture
) -> None:
    out, words = tmp_path / "c", list(fit)
    named = f"the checkpoint of another {differs}"
    if differs == "recipe":
        words += ["--seed", "4"]
        named += " (seed 20242025, not 4)"
    elif differs == "schema":
        text = (tmp_path / "data" / "schema.yaml").read_text()
        (tmp_path / "other.yaml").write_text(text.replace("name: ", "name: other-", 1))
        words += ["--schema", tmp_path / "other.yaml"]
    elif differs == "data":
        halve_embeddings(tmp_path / "data" / "item_info.parquet")
        named = "the checkpoint of other data"
    elif differs == "no record":
        kept = json.loads((out / "metrics.json").read_bytes())
        del kept["data"]
        (out / "metrics.json").write_text(json.dumps(kept))
        named = "a checkpoint without a record of its data"
    else:
        (out / "config.json").unlink()
        named = "files that are no checkpoint"
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert f"warning: {out}: training replaces {named}" in caplog.messages
    assert not (out / "mark").exists()


def halve_embeddings(file: Path) -> None:
    items = pq.read_table(file)
    at = items.column_names.index("item_emb_d128")
    halves = [[x / 2 for x in row] for row in items["item_emb_d128"].to_pylist()]
    pq.write_table(items.set_column(at, items.field(at).name, [halves]), file)
