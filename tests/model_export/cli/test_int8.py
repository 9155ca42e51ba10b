"""``build --int8`` as a command: its data, its gate, and what it prints."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import orjson
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from feature_store.schema import FeatureSchema
from model_export.__main__ import app
from model_export.bundle.bundle import newest
from model_export.quality.random_network import random_network
from tests.model_export.schemas import SMALL_SIZES
from training import checkpoint
from training.synthetic.sizes import SIZES
from training.synthetic.synthesize import synthesize


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "400"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    sizes = dataclasses.replace(SIZES["demo"], train=40, valid=200, test=4, items=30)
    synthesize(folder, sizes, seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    schema = FeatureSchema.read(data / "schema.yaml")
    folder = tmp_path_factory.mktemp("checkpoints") / "random"
    checkpoint.save(folder, random_network(schema, SMALL_SIZES), {})
    return folder


def test_int8_is_held_against_a_data_folders_valid_rows(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    built = run("build", trained, "--out", models, "--int8", "--data", data, "--force", "--json")
    assert built.exit_code == 0, built.stderr
    told = orjson.loads(built.stdout)
    gate = newest(models).manifest.quantisation
    assert told["quantisation"] == gate.model_dump()
    assert (gate.data, gate.rows) == ("data/valid.parquet", 200)
    assert gate.forced is not gate.passed
    shown = run("info", told["path"]).stdout
    assert ("FORCED past its gate" in shown) is gate.forced
    assert "data/valid.parquet (200 rows)" in shown


@pytest.fixture
def uncached(data: Path, tmp_path: Path) -> Path:
    """The same data without a cache."""
    return shutil.copytree(
        data, tmp_path / "uncached", ignore=shutil.ignore_patterns(".cache", "*train*")
    )


def test_the_rows_cache_may_lie_elsewhere_than_the_data(
    uncached: Path, trained: Path, tmp_path: Path
) -> None:
    network = checkpoint.load(trained)
    with torch.no_grad():
        network.fc.weight.neg_()  # as it is drawn, it ranks these rows inversely
        network.fc.bias.neg_()
    checkpoint.save(tmp_path / "turned", network, {})
    for command, source in (("build", trained), ("calibrate", tmp_path / "turned")):
        cache, models = tmp_path / f"{command}.cache", tmp_path / command
        words = ("--int8", "--force", "--data", uncached, "--cache", cache, "--out", models)
        done = run(command, source, *words)
        assert done.exit_code == 0, done.stderr
        assert any(cache.iterdir())
        assert not (uncached / ".cache").exists()
        assert newest(models).manifest.quantisation.data == "uncached/valid.parquet"


def test_a_cache_that_cannot_be_written_is_one_line_with_the_remedy(
    uncached: Path, trained: Path, tmp_path: Path
) -> None:
    (uncached / ".cache").touch()
    refused = run("calibrate", trained, "--data", uncached, "--out", tmp_path / "m")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1] == (
        f"error: held-out data: {uncached}/.cache: cannot keep the rows of "
        f"{uncached}/valid.parquet: File exists; give another folder as --cache"
    )


def test_a_cache_without_data_is_a_misuse(trained: Path, tmp_path: Path) -> None:
    refused = run("build", trained, "--cache", tmp_path)
    assert refused.exit_code == 2
    assert "--cache requires --data" in refused.stderr


def test_top_k_draws_from_the_items_alone_and_writes_no_cache(
    uncached: Path, trained: Path, tmp_path: Path
) -> None:
    words = ("--int8", "--force", "--data", uncached, "--cache", tmp_path / "cache")
    built = run("build", trained, *words, "--out", tmp_path / "m", "--json")
    bundle = orjson.loads(built.stdout)["path"]
    (uncached / "valid.parquet").unlink()
    sizes = ("--k", "2", "--candidates", "4", "--history", "2", "--lists", "1", "--seconds", "0.01")
    timed = run("bench-top-k", "--bundle", bundle, "--data", uncached, *sizes, "--json")
    assert timed.exit_code == 0, timed.stderr
    assert not (uncached / ".cache").exists()


def test_rows_without_labels_are_refused_in_one_line(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    for name in ("item_info", "item_feature"):
        (elsewhere / f"{name}.parquet").write_bytes((data / f"{name}.parquet").read_bytes())
    (elsewhere / "valid.parquet").write_bytes((data / "test.parquet").read_bytes())
    models = tmp_path / "models"
    refused = run("build", trained, "--out", models, "--int8", "--data", elsewhere)
    assert refused.exit_code == 1
    assert "error: held-out data: data/valid.parquet: has no column 'label'" in refused.stderr
    assert not models.exists()


@pytest.mark.parametrize(
    "arguments",
    [("absent", "--int8"), ("--random", "--int8", "--data", "."), ("absent", "--force")],
)
def test_int8_without_rows_to_judge_it_is_a_misuse(arguments: tuple[str, ...]) -> None:
    refused = run("build", *arguments)
    assert refused.exit_code == 2
    assert "--int8" in refused.stderr
