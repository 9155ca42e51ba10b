"""Scores of a batch run are the service's, to the bit and in the same order."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pytest

from tests.batch.command import manifest, parts, read, score, score_apart, scored
from tests.batch.inputs import UNKNOWN, Lists, make_lists, write
from tests.service.world import World


@pytest.fixture(scope="module")
def lists(world: World) -> Lists:
    return make_lists(world)


@pytest.fixture(scope="module")
def answers(client: httpx.Client, lists: Lists) -> list[dict]:
    """What the service says of each list."""
    found = []
    for user, items in zip(lists.users, lists.items, strict=True):
        body = orjson.dumps({"user_id": user, "candidates": items.tolist()})
        answer = client.post(
            "/v1/score", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


def bits(scores: list[float | None]) -> bytes:
    return np.array([np.nan if s is None else s for s in scores], np.float32).tobytes()


def test_lists_have_the_bits_of_the_service(
    world: World, lists: Lists, answers: list[dict], tmp_path: Path
) -> None:
    source = write(lists.table(), tmp_path / "lists.parquet")
    options = ("--keep", "label", "--part-candidates", "20000")
    done = score_apart(world, source, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    table = read(tmp_path / "out")
    assert len(parts(tmp_path / "out")) > 5
    assert table["user_id"].to_pylist() == lists.users
    assert table["label"].to_pylist() == [f"list {n}" for n in range(len(lists.users))]
    for n, answer in enumerate(answers):
        assert table["item_ids"][n].as_py() == answer["item_ids"]
        assert bits(table["scores"][n].as_py()) == bits(answer["scores"]), n
        assert table["user_status"][n].as_py() == ("cold" if answer["cold_user"] else "known")
        unknown = set(answer["unknown_items"])
        cold = set(answer["cold_items"])
        for item, status in zip(
            table["item_ids"][n].as_py(), table["item_status"][n].as_py(), strict=True
        ):
            wanted = "unknown" if item in unknown else "cold" if item in cold else "scored"
            assert status == wanted
    assert set(table["model_version"].to_pylist()) == {answers[0]["model_version"]}


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_in_any_order_have_the_bits_of_the_service(
    world: World, lists: Lists, answers: list[dict], tmp_path: Path, shuffled: bool
) -> None:
    count = sum(len(items) for items in lists.items)
    order = np.arange(count)
    if shuffled:  # users mixed; each user's rows stay in their order
        owner = np.repeat(np.arange(len(lists.items)), [len(items) for items in lists.items])
        mixed = np.random.default_rng(1).permutation(owner)
        order = np.empty(count, np.int64)
        order[np.argsort(mixed, kind="stable")] = np.arange(count)
    source = write(lists.rows(order), tmp_path / "rows.parquet")
    table = scored(world, source, tmp_path / "out", "--keep", "at", "--part-candidates", "20000")
    assert table["at"].to_pylist() == order.tolist()  # rows stay where they were
    wanted = np.concatenate(
        [np.array([np.nan if s is None else s for s in a["scores"]], np.float32) for a in answers]
    )
    found = table["score"].to_numpy(zero_copy_only=False).astype(np.float32)
    assert found.tobytes() == wanted[order].tobytes()
    assert manifest(tmp_path / "out")["counts"]["items_unknown"] == np.isnan(wanted).sum()


def test_the_best_k_of_lists_and_of_rows(
    world: World, lists: Lists, client: httpx.Client, tmp_path: Path
) -> None:
    some = Lists(lists.users[:50], lists.items[:50])
    of_lists = scored(
        world, write(some.table(), tmp_path / "l.parquet"), tmp_path / "l", "--top-k", "3"
    )
    of_rows = scored(
        world, write(some.rows(), tmp_path / "r.parquet"), tmp_path / "r", "--top-k", "3"
    )
    ranked: dict[int, dict[int, tuple[int, float]]] = {}
    for row in of_rows.to_pylist():
        ranked.setdefault(row["user_id"], {})[row["rank"]] = (row["item_id"], row["score"])
    for n, (user, items) in enumerate(zip(some.users, some.items, strict=True)):
        body = {"user_id": user, "candidates": items.tolist(), "top_k": 3}
        answer = client.post("/v1/score", json=body).json()
        assert of_lists["item_ids"][n].as_py() == answer["item_ids"]
        assert bits(of_lists["scores"][n].as_py()) == bits(answer["scores"])
        best = [ranked[user][rank] for rank in sorted(ranked[user])] if user in ranked else []
        assert [item for item, _ in best] == answer["item_ids"]
        assert bits([s for _, s in best]) == bits(answer["scores"])


def test_contexts_are_those_of_the_input(
    world: World, lists: Lists, client: httpx.Client, tmp_path: Path
) -> None:
    feature = world.schema.context[0]
    items = [ids[ids != UNKNOWN] for ids in lists.items[:20]]
    some = Lists(lists.users[:20], items)
    random = np.random.default_rng(2)
    levels = [random.integers(0, feature.vocabulary, len(ids)) for ids in items]
    of_lists = some.table().append_column(feature.name, pa.array(list(levels)))
    of_rows = some.rows().append_column(feature.name, pa.array(np.concatenate(levels)))
    first = scored(world, write(of_lists, tmp_path / "l.parquet"), tmp_path / "l")
    second = scored(world, write(of_rows, tmp_path / "r.parquet"), tmp_path / "r")
    wanted = b""
    for n, (user, ids) in enumerate(zip(some.users, items, strict=True)):
        context = {feature.name: levels[n].tolist()}
        body = {"user_id": user, "candidates": ids.tolist(), "context": context}
        answer = client.post("/v1/score", json=body).json()
        assert bits(first["scores"][n].as_py()) == bits(answer["scores"])
        wanted += bits(answer["scores"])
    assert bits(second["score"].to_pylist()) == wanted


def test_the_output_does_not_depend_on_the_workers_and_a_second_run_does_nothing(
    world: World, lists: Lists, tmp_path: Path
) -> None:
    source = write(Lists(lists.users[:200], lists.items[:200]).rows(), tmp_path / "r.parquet")
    options = ("--part-candidates", "5000")
    scored(world, source, tmp_path / "one", "--workers", "1", *options)
    scored(world, source, tmp_path / "two", "--workers", "2", *options)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    before = {path: path.stat().st_mtime_ns for path in parts(tmp_path / "two")}
    again = score(world, source, tmp_path / "two", *options, "--workers", "1")
    assert again.returncode == 0, again.stderr
    assert "0 of" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in parts(tmp_path / "two")}
    assert set(one) - {"_job.json", "_manifest.json", "_rejects.jsonl"} == {
        path.name for path in parts(tmp_path / "two")
    }
    assert read(tmp_path / "one").num_rows == sum(len(items) for items in lists.items[:200])


VIEWS = {
    "text": pa.array(["a", None, "b"], pa.string_view()),
    "bytes": pa.array([b"a", None, b"b"], pa.binary_view()),
    "texts": pa.array([["a"], None, ["b", "c"]], pa.list_(pa.string_view())),
    "large": pa.array([["a"], None, ["b", "c"]], pa.large_list(pa.string_view())),
    "pair": pa.array([["a", "b"]] * 3, pa.list_(pa.string_view(), 2)),
    "map": pa.array([[("a", "b")]] * 3, pa.map_(pa.string(), pa.string_view())),
    "struct": pa.array([{"x": "a"}] * 3, pa.struct([("x", pa.string_view())])),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_texts_are_passed_through_also_with_the_best_alone(
    world: World, tmp_path: Path, name: str
) -> None:
    rows = {"user_id": [1, 2, 3], "item_id": world.ids[:3], name: VIEWS[name]}
    source = write(pa.table(rows), tmp_path / "in.parquet")
    found = scored(world, source, tmp_path / "out", "--keep", name, "--top-k", "1")
    assert found[name].to_pylist() == VIEWS[name].to_pylist()
