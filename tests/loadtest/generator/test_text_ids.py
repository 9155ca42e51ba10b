"""Ids that are texts: drawn from mapped stores, sent, compared with the answers."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet
from rich.console import Console
from typer.testing import CliRunner

from feature_store.contract import Append
from feature_store.options import IdKind
from feature_store.schema import Categorical, FeatureSchema
from loadtest.analysis.results import summarise
from loadtest.cli import terminal
from loadtest.cli.app import app
from loadtest.experiments.stub_process import StubProcess
from loadtest.generator.answer_form import as_answered, fits, places
from loadtest.generator.columns import Reason
from loadtest.generator.id_kind import id_kind
from loadtest.generator.population import PopulationError, read_ids
from loadtest.generator.replay import read_log
from loadtest.generator.runner import Load, execute
from loadtest.generator.schedule import ScheduleError
from loadtest.generator.workload import EVENT, SCORE, Workload
from loadtest.oracle.comparison import check_run
from loadtest.oracle.stub_oracle import StubOracle
from loadtest.target import Target
from tests.feature_store.stores import connect
from tests.loadtest.canned import canned

SCHEMA = FeatureSchema(
    name="small", history_length=4, item=(Categorical(name="item_id", vocabulary=99, width=2),)
)
ITEMS = ["sku-4", "sku-17", "0007", "Čaj/½ 'x'", "7"]
USERS = ["u-1", "a3bb189e-8bf9-3886-9912-ace4e6543002"]


async def _fill(url: str, ids: IdKind) -> None:
    store = await connect(url, SCHEMA, create=True, ids=ids)
    if store.text_ids is None:
        await store.put_items(np.array([30, 4]), np.zeros(2, SCHEMA.item_dtype))
        await store.append(12, [4])
    else:
        numbers = store.text_ids.numbers(ITEMS)
        await store.name_items(dict(zip(numbers.tolist(), ITEMS, strict=True)))
        await store.put_items(numbers, np.zeros(len(ITEMS), SCHEMA.item_dtype))
        users = zip(USERS, store.text_ids.numbers(USERS).tolist(), strict=True)
        clicks = [Append(user, numbers[:2].tolist(), user_text=text) for text, user in users]
        assert await store.append_all(clicks) == [True, True]
    await store.close()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"lmdb://{tmp_path_factory.mktemp('mapped') / 'store'}"
    asyncio.run(_fill(url, "mapped"))
    return url


@pytest.fixture(scope="module")
def numeric(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"lmdb://{tmp_path_factory.mktemp('numeric') / 'store'}"
    asyncio.run(_fill(url, "numeric"))
    return url


def from_store(url: str, **options: Any) -> Workload:
    return Workload(users=url, items=url, candidates="1..5", **options)


def test_users_and_items_of_a_mapped_store_are_drawn_by_their_texts(mapped: str) -> None:
    assert read_ids(mapped, option="items", column="item_id").tolist() == sorted(ITEMS)
    assert read_ids(mapped, option="users", column="user_id").tolist() == sorted(USERS)
    workload = from_store(mapped, events=0.3, inline_history=3, distinct=200)
    documents = workload.documents(200, seed=1)
    assert documents == workload.documents(200, seed=1)
    assert {body["user_id"] for _, body in documents} == set(USERS)
    assert {body["item_id"] for kind, body in documents if kind == EVENT} <= set(ITEMS)
    scores = [body for kind, body in documents if kind == SCORE]
    asked = [item for body in scores for item in (*body["candidates"], *body["history"])]
    assert set(asked) == set(ITEMS)
    assert all(len(set(body["candidates"])) == len(body["candidates"]) for body in scores)


UUID_TEXT = "a3bb189e-8bf9-3886-9912-ace4e6543002"
LONG = "x" * 129
COLUMNS = {
    "strings": (pa.array(["b", "a", None, "", LONG, "0", "b"]), ["0", "a", "b"]),
    "large strings": (pa.array(["b"], pa.large_string()), ["b"]),
    "views": (pa.array(["a"], pa.string_view()), ["a"]),
    "a dictionary": (pa.array(["b", "a", "b", None]).dictionary_encode(), ["a", "b"]),
    "16 bytes": (pa.array([UUID(UUID_TEXT).bytes, None], pa.binary(16)), [UUID_TEXT]),
    "UUIDs": (pa.array([UUID(UUID_TEXT).bytes], pa.uuid()), [UUID_TEXT]),
    "numbers": (pa.array([17, 0, None, 4]), [4, 17]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_text_columns_of_parquet_are_ids(name: str, tmp_path: Path) -> None:
    column, expected = COLUMNS[name]
    parquet.write_table(pa.table({"item_id": column}), tmp_path / "items.parquet")
    file = str(tmp_path / "items.parquet")
    assert read_ids(file, option="items", column="item_id").tolist() == expected


def test_signed_integers_are_texts_of_a_mapped_store_as_its_load_reads_them(tmp_path: Path) -> None:
    file = str(tmp_path / "items.parquet")
    parquet.write_table(pa.table({"item_id": [-5, 7, 0, None]}), file)
    assert read_ids(file, option="items", column="item_id").tolist() == [7]
    drawn = Workload(users="1", items=file, candidates="2", distinct=1).documents(1, 1, "mapped")
    assert sorted(drawn[0][1]["candidates"]) == ["-5", "7"]


def test_a_folder_of_texts_in_one_part_and_numbers_in_another_is_texts(tmp_path: Path) -> None:
    for name, ids in (("1", [3, 4]), ("2", ["4", "b"]), ("3", [None])):
        parquet.write_table(pa.table({"item_id": ids}), tmp_path / f"part-{name}.parquet")
    found = read_ids(str(tmp_path), option="items", column="item_id").tolist()
    assert found == ["3", "4", "b"]


def test_requests_share_the_texts_that_they_name(mapped: str) -> None:
    documents = Workload(users="1", items=mapped, candidates="5", distinct=50).documents(50, seed=1)
    named = [text for _, body in documents for text in body["candidates"]]
    assert len({id(text) for text in named}) == len(ITEMS) < len(named)


def test_numbers_beside_texts_are_sent_as_decimal_texts(mapped: str) -> None:
    beside = Workload(users="8..9", items=mapped, candidates="2").documents(50, seed=1)
    assert {body["user_id"] for _, body in beside} == {"8", "9"}
    alone = Workload(users="1..9", items="1..9", candidates="2", events=0.5)
    assert {type(body["user_id"]) for _, body in alone.documents(50, 1)} == {int}
    assert {type(body["user_id"]) for _, body in alone.documents(50, 1, "numeric")} == {int}
    for kind, body in alone.documents(50, seed=1, ids="mapped"):
        named = [body["item_id"]] if kind == EVENT else body["candidates"]
        assert all(type(text) is str and text.isdecimal() for text in (body["user_id"], *named))


def test_a_population_of_the_other_kind_is_refused_in_one_line(mapped: str, numeric: str) -> None:
    with pytest.raises(PopulationError, match=r"^items: the ids of lmdb:\S+ are texts, those of"):
        Workload(items=mapped).documents(5, 1, "numeric")
    with pytest.raises(PopulationError, match=r"^users: .* numbers, those of the service are text"):
        Workload(users=numeric).documents(5, 1, "mapped")
    with pytest.raises(PopulationError, match=r"^users: .* are numbers, those of items are texts$"):
        Workload(users=numeric, items=mapped, candidates="1").documents(5, 1)


def test_recorded_requests_of_the_other_kind_are_refused_by_file_and_line(tmp_path: Path) -> None:
    texts, numbers, strings = (tmp_path / name for name in ("texts", "numbers", "strings"))
    texts.write_text('{"at": 0, "user_id": "u-1", "candidates": ["a"]}\n')
    numbers.write_text('{"at": 0, "user_id": 7, "item_id": 4}\n')
    strings.write_text('{"at": 0, "user_id": "7", "candidates": ["4", 17]}\n')
    for log, ids in ((texts, "mapped"), (numbers, "numeric"), (strings, "numeric")):
        assert len(read_log(log, ids=ids)[1]) == 1  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match=r"texts, line 1: user_id is 'u-1'; .* are numbers$"):
        read_log(texts, ids="numeric")
    with pytest.raises(ScheduleError, match=r"numbers, line 1: user_id is 7; .* are texts$"):
        read_log(numbers, ids="mapped")


def test_an_answer_names_the_texts_of_its_request() -> None:
    asked: dict[str, Any] = {"candidates": ["b", "a", "007", "b"]}
    scores = [0.1, 0.2, None, 0.1]
    assert fits(asked, ["b", "a", "007", "b"], scores)
    others: list[list[Any]] = [["b", "a", "7", "b"], ["b", "a", 7, "b"], ["B", "a", "007", "b"]]
    for wrong in others:
        assert not fits(asked, wrong, scores)
    asked["top_k"] = 3
    assert fits(asked, ["a", "b", "b"], [0.2, 0.1, 0.1])
    assert places(asked, ["a", "b", "b"]).tolist() == [1, 0, 0]
    assert not fits(asked, ["a", "b", "c"], [0.2, 0.1, 0.1])


def test_a_service_of_numbers_answers_decimal_strings_as_numbers_unless_asked() -> None:
    asked: dict[str, Any] = {"candidates": ["9007199254740993", "007"]}
    assert as_answered(asked) == [9007199254740993, 7]
    assert as_answered({**asked, "ids_as_strings": True}) == ["9007199254740993", "7"]


@pytest.mark.parametrize("top_k", [None, 2])
def test_scores_of_texts_are_compared_and_falsified_ones_found(
    mapped: str, top_k: int | None
) -> None:
    workload = Workload(users="1..500", items=mapped, candidates="3..5", top_k=top_k, distinct=150)
    with StubProcess(service="constant:1ms", servers=0, lie_every=10) as stub:
        load = Load(stub.url, rate=150, seconds=1, warmup=0, workload=workload, keep_answers=True)
        with execute(load) as run:
            report = check_run(run, StubOracle())
            result = summarise(run, [], report)
    assert report.checked == result["requests"] == stub.counts["requests"]
    assert 0 < report.wrong_scores == result["buckets"]["wrong"] <= stub.counts["lies"]
    if top_k is None:  # otherwise a falsified score may be none of the best
        assert report.wrong_scores == stub.counts["lies"]


def test_a_log_of_texts_is_replayed_with_repeats_and_unknown_texts(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"user_id": "u-1", "candidates": ["a", "b", "a", "Čaj ½"], "top_k": 3},
        {"user_id": "u-2", "candidates": ["a", "a"], "history": ["b", "nothing of the kind"]},
        {"user_id": "u-3", "item_id": "b"},
    ]
    log = tmp_path / "log"
    log.write_bytes(b"\n".join(orjson.dumps({"at": 0.02 * n, **lines[n % 3]}) for n in range(30)))
    with StubProcess(service="constant:1ms", servers=0) as stub:
        load = Load(stub.url, replay=log, keep_answers=True)
        with execute(load) as run:
            report = check_run(run, StubOracle())
            result = summarise(run, [], report)
    assert result["buckets"]["ok"] == result["requests"] == 30
    assert (report.checked, report.wrong_scores) == (20, 0)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({"/readyz": {"status": "ready", "ids": "numeric"}}, "numeric"),
        ({"/readyz": {"status": "ready", "ids": "mapped"}}, "mapped"),
        ({"/readyz": {"status": "ready"}}, None),
        ({"/readyz": {"ids": ["mapped"]}}, None),
        ({"/readyz": "mapped"}, None),
        ({}, None),
    ],
)
def test_a_service_says_which_ids_it_takes(answers: dict[str, Any], found: str | None) -> None:
    with canned(answers) as url:
        assert id_kind(Target.parse(url)) == found


@pytest.mark.parametrize("command", ["run", "search", "compare", "swap", "soak"])
def test_a_load_whose_ids_do_not_fit_the_service_is_refused_before_it_begins(
    mapped: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=told, width=1000))
    versions = ["--version", "a", "--version", "b"]
    pid, change = ["--pid", str(os.getpid())], ["--change", "top_k=2"]
    own = {"soak": pid, "swap": versions, "compare": change}.get(command, [])
    with canned({"/readyz": {"ids": "numeric"}}) as url:
        done = CliRunner().invoke(app, [command, url, "--users", mapped, "--duration", "1s", *own])
    assert done.exit_code == 2, done.output
    expected = f"error: users: the ids of {mapped} are texts, those of the service are numbers"
    assert told.getvalue().strip() == expected


def test_a_wrong_id_in_an_answer_is_found(mapped: str) -> None:
    answer = {"model_version": "v", "item_ids": ["sku-4", "sku-71"], "scores": [0.5, 0.5]}
    workload = Workload(users=mapped, items="1..2", candidates="2", distinct=4)
    with canned({"/readyz": {"ids": "mapped"}, "/v1/score": answer}) as url:
        load = Load(url, rate=20, seconds=0.5, warmup=0, workload=workload, keep_answers=True)
        with execute(load) as run:
            reasons = set(run.columns.reason.tolist())
    assert reasons == {Reason.BODY}
