"""``cold-items`` from end to end on the tiny corpus, its contents, and its verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from text.__main__ import app
from text.ablate.results import Result
from text.cold.contents import ARMS, Texts, contents
from text.cold.verdict import conditions
from text.corpus.corpus import Corpus
from text.runtime.encoder import TextEncoder

WARM = 70


@pytest.fixture(scope="module")
def run(
    bundle: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], dict[str, Any]]:
    """The command on a world of few rows, two seeds; and what it prints as JSON.

    The folder of results has a folder of another's.
    """
    out = str(tmp_path_factory.mktemp("cold") / "out")
    (Path(out) / "seed-0").mkdir(parents=True)
    (Path(out) / "seed-0" / "kept").touch()
    command = ["cold-items", str(bundle), str(corpus.folder), "--out", out, "--seeds", "2"]
    command += ["--train", "3001", "--valid", "401", "--cold", "801", "--size", "8"]
    command += ["--least-tags", "1", "--epochs", "1", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return command, json.loads(done.stdout)


def test_every_arm_is_measured_in_both_languages_with_every_seed(
    run: tuple[list[str], dict[str, Any]],
) -> None:
    found = run[1]
    assert found["languages"] == ["en", "de"]
    assert (found["items"], found["cold_items"]) == (96, 36)
    assert [(each["arm"], each["seed"]) for each in found["results"]] == [
        (arm, seed) for seed in (0, 1) for arm in ARMS
    ]
    for each in found["results"]:
        figures = each["figures"]
        assert 0.5 < figures["best_auc"] < 1
        for name in ("first", "second"):
            share = (figures[f"auc_{name}"] - 0.5) / (figures["best_auc"] - 0.5)
            assert figures[f"share_{name}"] == pytest.approx(share)
        if each["arm"] in ("none", "planted"):  # they have no language
            assert figures["auc_first"] == figures["auc_second"]
    assert {each["arm"] for each in found["conditions"]} == {"pca", "ridge"}


def test_a_rerun_repeats_nothing_and_another_world_is_refused(
    run: tuple[list[str], dict[str, Any]],
) -> None:
    command, before = run
    again = CliRunner().invoke(app, command)
    assert json.loads(again.stdout) == before
    out = Path(command[command.index("--out") + 1])
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["seed-0", *(f"cold-{arm}-{seed}.json" for seed in (0, 1) for arm in ARMS)]
    )
    assert (out / "seed-0" / "kept").exists()
    other = CliRunner().invoke(app, [*command, "--epochs", "2"])
    assert other.exit_code == 1
    assert "a result of another recipe" in " ".join(other.output.split())
    wrong = CliRunner().invoke(app, [*command, "--contents", "ours"])
    assert wrong.exit_code == 2
    some = CliRunner().invoke(app, [*command, "--contents", "planted,tf-idf"])
    found = json.loads(some.stdout)
    assert [each["arm"] for each in found["results"]] == ["tf-idf", "planted"] * 2
    assert found["conditions"] == []
    table = CliRunner().invoke(app, command[:-1])
    assert table.exit_code == 0
    assert table.output.count("holds") + table.output.count("does not hold") >= 6


def test_contents_are_fitted_to_warm_items_in_the_first_language_alone(
    corpus: Corpus, bundle: Path, tmp_path: Path
) -> None:
    """Cold texts in another order, of both languages, leave the contents of warm items."""
    encoder = TextEncoder.open(bundle)
    english, german = (corpus.items(lang)["text"].to_pylist() for lang in ("en", "de"))
    planted = np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32)
    one, other = (
        Texts(("en", "de"), english[:WARM], {"en": english[WARM:][::by], "de": german[WARM:][::by]})
        for by in (1, -1)
    )
    for arm in ARMS:
        first, second = (contents(arm, own, planted, encoder, tmp_path) for own in (one, other))
        assert first.warm.shape == (WARM, 8)
        assert np.array_equal(first.warm, second.warm)
        if arm in ("tf-idf", "pca", "ridge"):
            for lang in ("en", "de"):
                assert np.allclose(first.cold[lang], second.cold[lang][::-1], atol=1e-5)
            assert not np.allclose(first.cold["de"], first.cold["en"], atol=0.01)


def figures(share: float, across: float) -> dict[str, float]:
    return {"share_first": share, "auc_first": 0.8, "auc_second": 0.8 + across}


def test_a_condition_holds_with_every_seed_or_not() -> None:
    results = []
    for seed, shares in enumerate([(0.75, 0.7, 0.9), (0.75, 0.76, 0.9)]):
        for arm, share in zip(("pca", "tf-idf", "planted"), shares, strict=True):
            results.append(Result("cold", arm, seed, figures(share, -0.01 * seed), 1.0))
        results.append(Result("cold", "ridge", seed, figures(0.6, -0.03), 1.0))
    holds = {(each.arm, each.name.split(",")[1]): each.holds for each in conditions(results)}
    assert holds == {
        ("pca", " by that of planted"): True,
        ("pca", " less that of tf-idf"): False,  # with the second seed
        ("pca", " less the first"): True,
        ("ridge", " by that of planted"): False,
        ("ridge", " less that of tf-idf"): False,
        ("ridge", " less the first"): False,
    }
