"""Two versions on one input: AUC, calibration, ranks, segments, held against plain formulas."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.compare import comparison
from batch.compare.labelled import Labelled
from batch.compare.ranks import Ranks
from tests.batch.command import parts, run, scored
from tests.batch.inputs import make_lists, write
from tests.batch.test_resume import flip_the_middle
from tests.service.small_schema import SMALL
from tests.service.user_world import add_levels
from tests.service.world import SMALL_SIZES, World, make_world, random_published


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
    tenth = np.minimum(np.floor(sure * 10), 9)
    off = [abs((sure - labels)[tenth == n].sum()) for n in range(10)]
    assert facts["calibration_error"] == pytest.approx(sum(off) / len(rows))
    curve = [(sure[tenth == n].mean(), labels[tenth == n].mean()) for n in np.unique(tenth)]
    assert np.allclose([(p, c) for p, c, _ in found.points()], curve)


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


def test_ranks_of_a_sample_are_those_of_whole_lists() -> None:
    ranks, length = Ranks(of=3), 12
    group = np.repeat(np.arange(300), length)
    a = np.tile(np.linspace(0, 1, length), 300).astype(np.float32)
    ranks.add(group, a, -a)
    facts = ranks.facts()
    assert 60 < facts["lists"] < 140
    assert facts["one_in"] == 3
    assert facts["first_differs"] == 1.0
    assert facts["top_10_kept"] == pytest.approx(0.8)  # of 12, the first ten and the last ten
    assert facts["mean_places_moved"] == pytest.approx(6.0)  # 11, 9, … 1, 1, … 11


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
    table = make_lists(world, 10).table()
    table = table.append_column("place", pa.array(range(10)))
    source = write(table, tmp_path / "in.parquet")
    other = write(make_lists(world, 11).table(), tmp_path / "other.parquet")
    scored(world, source, tmp_path / "a")
    scored(world, source, tmp_path / "best", "--top-k", "2")
    scored(world, source, tmp_path / "by_place", "--user-column", "place")
    scored(world, other, tmp_path / "b")
    for place, said in (
        (tmp_path / "none", "has no _manifest.json"),
        (tmp_path / "best", "--top-k"),
        (tmp_path / "by_place", "scored with other columns: user user_id against place"),
        (tmp_path / "b", "holds scores of another input"),
    ):
        done = compare(str(tmp_path / "a"), str(place), "--input", str(source))
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_versions_of_other_features_are_compared_where_the_input_has_theirs(
    tmp_path: Path,
) -> None:
    world = make_world(tmp_path / "world", items=200)
    asyncio.run(add_levels(world))
    table = make_lists(world, 12, longest=20).table()
    table = table.append_column("device", pa.array([None, *[1, 2, 3] * 3, 0, 1], pa.int64()))
    table = table.append_column("hour", pa.array(np.linspace(0, 23, 12)))
    source = write(table, tmp_path / "in.parquet")
    plain, levels = tmp_path / "plain", tmp_path / "levels"
    one, two = (
        scored(world, source, out, "--bundle", str(world.models / version), *kept)
        for out, version, kept in (
            (plain, world.bundle.version, ("--keep", "hour")),
            (levels, "levels-1", ()),
        )
    )
    words = (str(plain), str(levels), "--input", str(source))
    done = compare(*words, "--json")
    assert done.returncode == 0, done.stderr
    facts = orjson.loads(done.stdout)
    a, b = (np.concatenate(table["scores"].to_pylist()).astype(float) for table in (one, two))
    assert facts["largest_difference"] == pytest.approx(np.nanmax(np.abs(b - a)), abs=1e-6)
    assert facts["candidates"] == len(a)
    features = {"a": [], "b": ["device", "hour"]}
    assert facts["other_columns"] == {"features": features}
    assert "features none in A, device, hour in B" in compare(*words).stdout
    other = write(table.slice(1), tmp_path / "other.parquet")
    refused = compare(*words[:2], "--input", str(other))
    assert "holds scores of another input" in refused.stderr


def with_itself(output: Path, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Compare an output with itself."""
    return compare(str(output), str(output), "--input", str(source), *options)


def test_a_damaged_output_is_refused_and_names_its_file(world: World, tmp_path: Path) -> None:
    source, out = write(make_lists(world, 10).table(), tmp_path / "in.parquet"), tmp_path / "a"
    scored(world, source, out)
    (part,) = parts(out)

    def refused() -> str:
        done = with_itself(out, source)
        assert done.returncode == 1
        return done.stderr

    assert with_itself(out, source).returncode == 0
    flip_the_middle(part)
    assert f"{part.name} is missing or damaged; run `score` again" in refused()
    flip_the_middle(part)
    manifest = out / "_manifest.json"
    whole = manifest.read_bytes()
    mark = orjson.loads(whole)["parts"][0]["sha256"].encode()
    for damaged in (whole[:-9], b"[]", whole.replace(mark, mark[::-1])):
        manifest.write_bytes(damaged)
        assert "_manifest.json is damaged; run `score` again" in refused()


def test_what_one_version_alone_has_scored_is_counted(world: World, tmp_path: Path) -> None:
    items = [world.ids[:3], world.ids[:6], world.ids[2:6]]
    source = write(pa.table({"user_id": [1, 2, 3], "item_ids": items}), tmp_path / "in.parquet")
    few = ("--max-candidates", "4", "--max-rejects", "1")
    scored(world, source, tmp_path / "a", *few, code=3)
    scored(world, source, tmp_path / "b")
    done = compare(str(tmp_path / "a"), str(tmp_path / "b"), "--input", str(source), "--json")
    facts = orjson.loads(done.stdout)
    assert (facts["candidates"], facts["scored_by_both"]) == (13, 7)
    assert (facts["scored_by_a_alone"], facts["scored_by_b_alone"]) == (0, 6)
    assert facts["largest_difference"] == 0.0


def test_segments_and_labels_are_shown_or_refused_with_their_row(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "row 1, column a: 2 is neither 0 nor 1": [[0, 1], [1, 2]],
        "row 1, column b: -1 is neither 0 nor 1": [[0, 1], [-1, 0]],
        "row 1, column c: 0.5 is not a whole number": [[0.0, 1.0], [0.5, 1.0]],
        "row 1, column d: 1 labels for 2 candidates": [[0, 1], [1]],
        "column e: holds string, not labels 0 and 1": [["no", "yes"], ["no", "no"]],
        "column f: holds int64, not a list of labels per row": [0, 1],
    }
    table = pa.table({"user_id": [1, 2], "item_ids": [world.ids[:2], world.ids[2:4]]})
    for name, labels in zip("abcdef", said.values(), strict=True):
        table = table.append_column(name, pa.array(labels))
    table = table.append_column("clicked", pa.array([[0, None], [1, 0]]))
    table = table.append_column("place", pa.array(["[/b]", "\x1b[31m"]))
    table = table.append_column("country", pa.array(["de", None]))
    source = write(table, tmp_path / "in.parquet")
    scored(world, source, tmp_path / "a")
    done = with_itself(tmp_path / "a", source, "--label", "clicked", "--segment", "place")
    assert done.returncode == 0
    assert "place: [/b] " in done.stdout
    assert "place: \\x1b[31m " in done.stdout
    assert "mean score, A → B" in done.stdout
    assert "calibration error, A → B" in done.stdout
    done = with_itself(tmp_path / "a", source, "--label", "clicked", "--segment", "country")
    assert "country: no value " in done.stdout
    monkeypatch.setattr(comparison, "MOST_SEGMENTS", 1)
    out = str(tmp_path / "a")
    facts = comparison.compare(out, out, str(source), "clicked", ["place"]).facts()
    assert facts["labels"]["rows"] == 3  # one has no label
    assert facts["labels"]["a"]["click_rate"] == pytest.approx(1 / 3)
    rows = {name: found["rows"] for name, found in facts["segments"]["place"].items()}
    assert rows == {"\x1b[31m": 2, "(others)": 1}
    for name, line in zip("abcdef", said, strict=True):
        done = with_itself(tmp_path / "a", source, "--label", name)
        assert (done.returncode, done.stderr) == (1, f"error: {source}: {line}\n")
    segments = with_itself(tmp_path / "a", source, "--segment", "user_id")
    assert "--segment: figures of segments need labels" in segments.stderr
