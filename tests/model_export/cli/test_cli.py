"""The room as a program: what it prints, what it refuses, and its exit status."""

from __future__ import annotations

import subprocess
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from model_export.__main__ import app
from model_export.build import _count
from model_export.bundle.bundle import Bundle, newest
from model_export.cli.app import untrained
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.ranker import ranker
from model_export.graphs.towers import history_tower, item_tower
from model_export.quality.random_network import random_network
from tests import programs
from tests.model_export.schemas import SMALL, SMALL_SIZES
from training import checkpoint
from training.qin import QIN


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return programs.run("model_export", *map(str, arguments), COLUMNS="120")


def in_process(*arguments: str | Path) -> Result:
    """The same without a process of its own: nothing waits for torch to be imported."""
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120"})


@pytest.fixture
def trained(network: QIN, tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-7"
    checkpoint.save(folder, network, {"valid_auc": 0.91234, "epochs": 3})
    return folder


def test_a_checkpoint_becomes_a_verified_bundle(trained: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    built = run("build", trained, "--out", models, "--json")
    assert built.returncode == 0, built.stderr
    published = Bundle.open(orjson.loads(built.stdout)["path"])
    assert published == newest(models)
    training = published.manifest.training
    assert training.checkpoint == "checkpoint-7"
    assert training.metrics == {"valid_auc": 0.91234, "epochs": 3}
    assert training.weights_sha256 is not None

    verified = run("verify", published.path)
    assert verified.returncode == 0, verified.stderr
    assert "11 files as published" in verified.stdout

    shown = run("info", published.path)
    assert "checkpoint-7 (valid_auc 0.9123)" in shown.stdout
    assert "categorical, 50 values, width 8" in shown.stdout


def test_a_taken_version_is_refused_in_one_line(trained: Path, tmp_path: Path) -> None:
    arguments = ("build", trained, "--out", tmp_path / "models", "--version", "v1")
    assert in_process(*arguments).exit_code == 0
    refused = run(*arguments)
    assert refused.returncode == 1
    assert "v1: exists, and a version is immutable" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "absent"), "error: absent/manifest.json: not found"),
        (("info", "absent"), "error: absent/manifest.json: not found"),
        (("build", "absent"), "error: absent: not a checkpoint"),
        (("build", "--random", "--schema", "absent.yaml"), "error: absent.yaml: cannot be read"),
        (("build", "--random", "--version", "a/b"), "error: version: 'a/b'"),
        (("build", "--random", "--content", f"colour:{'a' * 16}"), "error: content: colour is no"),
    ],
)
def test_what_is_refused_says_why(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path) if arguments[0] == "build" else ()
    refused = in_process(*arguments, *out)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, SystemExit)  # else a process prints a traceback
    assert message in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--content", "item_emb_d128"), "not FEATURE:DIGEST"),
        (("--content", "item_emb_d128:xyz"), "not FEATURE:DIGEST"),
        (("--given-content",), "requires --content"),
    ],
)
def test_a_content_that_is_none_is_refused(options: tuple[str, ...], message: str) -> None:
    refused = in_process("build", "--random", *options)
    assert refused.exit_code == 2
    assert message in " ".join(refused.stderr.replace("│", " ").split())


def test_random_weights_need_no_checkpoint(tmp_path: Path) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text(SMALL.to_yaml())
    built = in_process("build", "--random", "--schema", schema, "--out", tmp_path / "models")
    assert built.exit_code == 0, built.output
    assert newest(tmp_path / "models").manifest.training.checkpoint is None


def test_at_the_papers_sizes_a_candidate_costs_under_five_million_multiply_adds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the network that ``--random`` takes. Its shapes suffice: a smaller one is published."""
    asked: list[QIN] = []

    def smaller(schema: Path | None, seed: int) -> QIN:
        asked.append(untrained(schema, seed))
        return random_network(SMALL, SMALL_SIZES, seed)

    monkeypatch.setattr("model_export.cli.build.untrained", smaller)
    built = in_process("build", "--random", "--out", tmp_path, "--version", "paper")
    assert built.exit_code == 0, built.output
    (network,) = asked
    assert network.schema.name == "microlens-1m"
    folded = FoldedNetwork.of(network)
    work = _count(network, item_tower(folded), history_tower(folded), ranker(folded), None)
    assert work.candidate < 5_000_000
    assert 54_000_000 < work.published_candidate < 57_000_000
    told = orjson.loads(in_process("info", tmp_path / "paper", "--json").stdout)
    assert 0 < told["multiply_adds"]["candidate"] < told["multiply_adds"]["published_candidate"]
    assert told["parity"]["max_abs_error"] < 1e-5


def test_the_bench_prints_json_and_writes_its_page(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    sizes = ("--candidates", "1,512", "--history", "12,20", "--seconds", "0.01")
    done = run("bench", *sizes, "--checkpoint", trained, "--report", page, "--json")
    figures = orjson.loads(done.stdout)
    assert done.returncode == (not all(bar["met"] for bar in figures["bars"])), done.stderr
    assert figures["subject"] == "checkpoint checkpoint-7"
    assert [(c["candidates"], c["history"]) for c in figures["cases"]] == [
        (1, 12),
        (512, 12),
        (512, 20),
    ]
    assert len(figures["bars"]) >= 3
    assert f"performance-{figures['processor_kind']}.svg" in page.read_text()


def test_a_page_that_cannot_be_written_is_refused_before_measuring(tmp_path: Path) -> None:
    page = tmp_path / "missing" / "performance.md"
    refused = in_process("bench", "--seconds", "0.01", "--report", page)
    assert refused.exit_code == 1
    assert refused.stderr.splitlines() == [
        f"error: {page}: cannot be written: no such folder, or no permission"
    ]


@pytest.mark.parametrize("lengths", ["", "0", "8,x", "8,8", "-1"])
def test_lengths_that_are_none_are_refused(lengths: str) -> None:
    refused = in_process("bench", "--candidates", lengths)
    assert refused.exit_code == 2
    assert "positive numbers, separated by commas" in refused.stderr


def test_top_k_is_not_timed_on_a_bundle_without_int8(trained: Path, tmp_path: Path) -> None:
    assert in_process("build", trained, "--out", tmp_path, "--version", "v1").exit_code == 0
    refused = run("bench-top-k", "--bundle", tmp_path / "v1", "--data", tmp_path)
    assert refused.returncode == 1
    assert "was not judged in int8; build it with --int8" in refused.stderr.replace("\n", " ")
