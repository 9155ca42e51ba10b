"""Two versions on one input: AUC, calibration, ranks, segments, held against plain formulas."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.compare.labelled import Labelled
from batch.compare.ranks import Ranks
from tests.batch.command import run, scored
from tests.batch.inputs import make_lists, write
from tests.service.small_schema import SMALL
from tests.service.world import SMALL_SIZES, World, random_published


def plain_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    yes, no = scores[labels == 1], scores[labels == 0]
    above = (yes[:, None] > no[None]).sum() + 0.5 * (yes[:, None] == no[None]).sum()
    return float(above / (len(yes) * len(no)))


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=1)
)
def test_auc_logloss_and_calibration_are_those_of_their_formulas(
    rows: list[tuple[float, bool]],
) -> None:
    scores = np.array([score for score, _ in rows], np.float32)
    labels = np.array([label for _, label in rows], np.int64)
    found = Labelled()
    for part in np.array_split(np.arange(len(rows)), 3):
        found.add(scores[part], labels[part])
    assert found.rows == len(rows)
    if 0 < labels.sum() < len(labels):
        assert found.auc == pytest.approx(plain_auc(scores, labels))
    else:
        assert found.auc is None
    sure = np.clip(scores.astype(float), 1e-7, 1 - 1e-7)
    loss = -np.mean(np.where(labels == 1, np.log(sure), np.log(1 - sure)))
    facts = found.facts()
    assert facts["logloss"] == pytest.approx(loss)
    assert facts["click_rate"] == pytest.approx(labels.mean())
    assert facts["mean_score"] == pytest.approx(sure.mean())


def test_ranks_count_what_moved() -> None:
    ranks = Ranks()
    group = np.array([1, 1, 1, 2, 3, 3])
    a = np.array([0.9, 0.5, 0.1, 0.5, 0.2, 0.8], np.float32)
    b = np.array([0.5, 0.9, 0.1, 0.5, 0.2, 0.8], np.float32)
    ranks.add(group, a, b)
    facts = ranks.facts()
    assert facts["lists"] == 2
    assert facts["first_differs"] == 0.5
    assert facts["top_10_kept"] == 1.0
    assert facts["mean_places_moved"] == pytest.approx((2 / 3 + 0) / 2)


def compare(*words: str) -> subprocess.CompletedProcess[str]:
    return run("compare", *words)


@pytest.mark.parametrize("layout", ["rows", "lists"])
def test_two_versions_on_one_input(world: World, tmp_path: Path, layout: str) -> None:
    random_published(SMALL, SMALL_SIZES, 98, tmp_path / "other", "small-2")
    lists = make_lists(world, 60, longest=80)
    random = np.random.default_rng(5)
    labels = [random.integers(0, 2, len(items)) for items in lists.items]
    country = np.array(["de", "fr", "se"])[np.arange(60) % 3]
    if layout == "lists":
        table = lists.table().append_column("clicked", pa.array(list(labels)))
        table = table.append_column("country", pa.array(country))
    else:
        lengths = [len(items) for items in lists.items]
        table = lists.rows().append_column("clicked", pa.array(np.concatenate(labels)))
        table = table.append_column("country", pa.array(np.repeat(country, lengths)))
    source = write(table, tmp_path / "in.parquet")
    a = scored(world, source, tmp_path / "a", "--part-candidates", "900")
    b = scored(world, source, tmp_path / "b", "--bundle", str(tmp_path / "other"))
    picture = tmp_path / "picture.svg"
    done = compare(
        *(str(tmp_path / "a"), str(tmp_path / "b"), "--input", str(source), "--label", "clicked"),
        *("--segment", "country", "--picture", str(picture), "--json"),
    )
    assert done.returncode == 0, done.stderr
    facts = orjson.loads(done.stdout)
    flat = [np.concatenate([s if isinstance(s, list) else [s] for s in t.column(
        "score" if layout == "rows" else "scores").to_pylist()]) for t in (a, b)]  # fmt: skip
    one, two = (np.array([np.nan if s is None else s for s in f], np.float32) for f in flat)
    clicked, known = np.concatenate(labels), ~np.isnan(one)
    where = np.repeat(country, [len(items) for items in lists.items])
    assert facts["scored_by_both"] == known.sum()
    assert facts["candidates"] == len(one)
    assert facts["largest_difference"] == pytest.approx(np.nanmax(np.abs(two - one)), abs=1e-6)
    wanted = plain_auc(two[known], clicked[known]) - plain_auc(one[known], clicked[known])
    assert facts["labels"]["delta_auc"] == pytest.approx(wanted, abs=2e-3)
    assert facts["ranks"]["lists"] == sum(
        len(items) > 1 and known_ > 1
        for items, known_ in zip(lists.items, _known(lists.items, known), strict=True)
    )
    german = facts["segments"]["country"]["de"]
    assert german["rows"] == (known & (where == "de")).sum()
    root = ElementTree.fromstring(picture.read_text())
    assert root.tag.endswith("svg")
    told = compare(str(tmp_path / "a"), str(tmp_path / "b"), "--input", str(source), "--label",
                   "clicked")  # fmt: skip
    assert "ΔAUC (B − A)" in told.stdout
    assert f"{facts['labels']['delta_auc']:+.5f}" in told.stdout


def _known(items: list[np.ndarray], known: np.ndarray) -> list[int]:
    edges = np.cumsum([len(ids) for ids in items])[:-1]
    return [int(part.sum()) for part in np.split(known, edges)]


def test_outputs_that_cannot_be_compared_are_refused(world: World, tmp_path: Path) -> None:
    source = write(make_lists(world, 10).table(), tmp_path / "in.parquet")
    other = write(make_lists(world, 11).table(), tmp_path / "other.parquet")
    scored(world, source, tmp_path / "a")
    scored(world, source, tmp_path / "best", "--top-k", "2")
    scored(world, other, tmp_path / "b")
    for place, said in (
        (tmp_path / "none", "has no _manifest.json"),
        (tmp_path / "best", "--top-k"),
        (tmp_path / "b", "holds scores of another input"),
    ):
        done = compare(str(tmp_path / "a"), str(place), "--input", str(source))
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
