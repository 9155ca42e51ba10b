"""What features bring: two checkpoints, one trained without them, compared on the same rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from training.__main__ import app

TINY = ("--train", "8000", "--valid", "2000", "--test", "40", "--items", "100")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    data, fit = folder / "data", ("--preset", "demo", "--epochs", "1", "--out")
    plain = ("--schema", data / "plain.yaml")
    for words in (
        ("synthesize", data, "--preset", "taste", *TINY),
        ("fit", data, *fit, folder / "taste"),
        ("fit", data, *plain, *fit, folder / "plain"),
        ("fit", data, *plain, "--set", "seed=1", *fit, folder / "other"),
    ):
        done = run(*words)
        assert done.exit_code == 0, done.output
    return folder


def test_auc_and_share_with_and_without_are_those_of_evaluate(folder: Path) -> None:
    data = folder / "data"
    done = run("compare", folder / "taste", folder / "plain", data, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["features"] == {"user": ["user_index", "country"], "request": ["device", "hour"]}
    assert found["rows"] == 2000
    for name, suffix, share in (
        ("taste", "", "share_of_the_possible"),
        ("plain", "_without", "share_without"),
    ):
        alone = json.loads(run("evaluate", folder / name, data, "--json").stdout.splitlines()[-1])
        assert found[f"auc{suffix}"] == pytest.approx(alone["auc"], abs=1e-6)
        assert found[share] == pytest.approx(alone["share_of_the_possible"], abs=1e-6)


def test_two_lines_name_the_features_and_how_the_networks_were_trained(folder: Path) -> None:
    done = run("compare", folder / "taste", folder / "plain", folder / "data")
    first, second = done.stdout.splitlines()
    names = "user and request features (user_index, country, device, hour)"
    assert first.startswith(f"AUC with {names}: 0.")
    assert first.endswith(" (trained by the same recipe, 2,000 validation rows)")
    truth = json.loads((folder / "data/truth.json").read_bytes())
    best, without = truth["best_auc_valid"], truth["best_auc_valid_without_features"]
    assert f"possible, (AUC − 0.5) / ({best:.4f} − 0.5): 0." in second
    most = (without - 0.5) / (best - 0.5)
    assert second.endswith(f" without (at best {most:.3f}: AUC {without:.4f})")
    other = run("compare", folder / "taste", folder / "other", folder / "data")
    assert "trained by another recipe (seed 1, not 20242025)" in other.stdout


def test_checkpoints_that_do_not_differ_by_left_out_features_are_refused(folder: Path) -> None:
    for first, second in (("plain", "taste"), ("plain", "other")):
        refused = run("compare", folder / first, folder / second, folder / "data")
        assert refused.exit_code == 1
        assert f"{folder / second}: not a network of the features of" in refused.stderr


def test_rows_of_one_label_have_no_auc_to_compare(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data, ignore=shutil.ignore_patterns(".cache"))
    rows = pq.read_table(data / "valid.parquet")
    pq.write_table(rows.filter(rows["label"].to_numpy() == 1), data / "valid.parquet")
    refused = run("compare", folder / "taste", folder / "plain", data)
    assert refused.exit_code == 1
    assert "valid.parquet: column label: the same in every row" in refused.stderr
