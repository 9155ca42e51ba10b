"""What is asked: ids by popularity, lists by length, whole requests as bytes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import feature_store
from feature_store.schema import Categorical, FeatureSchema
from loadtest.experiments.stub_process import StubProcess
from loadtest.experiments.swap import Admin
from loadtest.generator.candidate_counts import CandidateCounts, CandidateCountsError
from loadtest.generator.columns import Bucket
from loadtest.generator.population import PopulationError, Zipf, read_ids
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import EVENT, SCORE, Bank, Workload
from loadtest.target import Target, TargetError


def test_popularity_falls_with_rank_and_not_with_the_number() -> None:
    rng = np.random.default_rng(0)
    zipf = Zipf.over(np.arange(1, 1001), 1.0, rng)
    _, counts = np.unique(zipf.draw(rng, 200_000), return_counts=True)
    counts = np.sort(counts)[::-1]
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
    assert zipf.ids[:5].tolist() != [1, 2, 3, 4, 5]


@given(st.integers(1, 60), st.floats(0, 3), st.integers(0, 1000))
def test_a_list_never_names_an_item_twice(count: int, exponent: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = Zipf.over(np.arange(60), exponent, rng).draw_distinct(rng, count)
    assert drawn.size == count == np.unique(drawn).size


def test_ids_come_from_ranges_and_parquet(tmp_path: Path) -> None:
    parquet.write_table(
        pa.table({"item_id": [0, 7, 7, 3], "user_id": [1, 2, 2, 9]}), tmp_path / "x.parquet"
    )
    file = str(tmp_path / "x.parquet")
    assert read_ids("3", option="users", column="user_id").tolist() == [1, 2, 3]
    assert read_ids("5..7", option="users", column="user_id").tolist() == [5, 6, 7]
    assert read_ids(file, option="items", column="item_id").tolist() == [3, 7]
    assert read_ids(f"{file}:user_id", option="items", column="item_id").tolist() == [1, 2, 9]


@pytest.mark.parametrize("spec", ["7..3", "x", "nowhere.parquet", "1..99999999999"])
def test_ids_that_cannot_be_had_name_the_option(spec: str) -> None:
    with pytest.raises(PopulationError, match="items"):
        read_ids(spec, option="items", column="item_id")


def test_a_list_longer_than_the_catalogue_is_refused() -> None:
    with pytest.raises(PopulationError, match="candidates"):
        Workload(items="1..10", candidates="11").documents(1, 0)


def test_lengths_follow_their_distribution() -> None:
    rng = np.random.default_rng(0)
    assert set(CandidateCounts("64").draw(rng, 10)) == {64}
    uniform = CandidateCounts("10..20").draw(rng, 5000)
    assert (uniform.min(), uniform.max()) == (10, 20)
    mixed = CandidateCounts("50@0.9,5000@0.1").draw(rng, 20_000)
    assert np.mean(mixed == 5000) == pytest.approx(0.1, abs=0.01)
    skewed = CandidateCounts("lognormal:100:0.5:400").draw(rng, 20_000)
    assert np.median(skewed) == pytest.approx(100, rel=0.03)
    assert skewed.max() <= 400


@pytest.mark.parametrize("text", ["", "0", "a", "9..", "lognormal:5", "5@x", "lognormal:0:1"])
def test_an_unreadable_distribution_shows_the_forms(text: str) -> None:
    with pytest.raises(CandidateCountsError, match="candidates"):
        CandidateCounts(text).draw(np.random.default_rng(0), 10)


def test_requests_follow_from_the_seed_and_carry_what_was_asked_for() -> None:
    workload = Workload(events=0.3, top_k=5, inline_history=4, model_version="v", candidates="8")
    documents = workload.documents(1000, seed=2)
    assert documents == workload.documents(1000, seed=2)
    assert documents != workload.documents(1000, seed=3)
    events = [body for kind, body in documents if kind == EVENT]
    assert 200 < len(events) < 400
    score = next(body for kind, body in documents if kind == SCORE)
    assert (score["top_k"], len(score["history"]), score["model_version"]) == (5, 4, "v")
    assert len(score["candidates"]) == 8


def test_the_bank_holds_whole_requests_and_survives_its_file(tmp_path: Path) -> None:
    documents = Workload(events=0.5, candidates="1..20").documents(50, seed=1)
    bank = Bank.encode(documents, authority="h:1", prefix="/p", stages=True, headers={"A": "b"})
    bank.write(tmp_path)
    again = Bank.read(tmp_path)
    assert again.wire == bank.wire
    for entry, (kind, body) in enumerate(documents):
        head, _, sent = again.wire[entry].partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0] == f"POST /p/v1/{'events' if kind else 'score'} HTTP/1.1"
        assert {"Host: h:1", "A: b", "X-Server-Timing: 1", f"Content-Length: {len(sent)}"} < set(
            lines
        )
        assert orjson.loads(sent) == body == again.document(entry)


def test_only_loopback_is_aimed_at_unless_allowed() -> None:
    assert Target.parse("http://127.0.0.1:8000/x/").prefix == "/x"
    assert Target.parse("http://[::1]:80").authority == "[::1]:80"
    assert Target.parse("http://192.0.2.1:8000", allow_remote=True).host == "192.0.2.1"
    with pytest.raises(TargetError, match="--allow-remote"):
        Target.parse("http://192.0.2.1:8000")


def resolves_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The first answer is loopback, every later one is elsewhere."""
    found = iter(["127.0.0.1"])
    resolve = socket.getaddrinfo

    def rebinding(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(next(found, "192.0.2.1") if host == name else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)


def test_the_address_that_was_checked_is_the_one_that_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_once(monkeypatch, "rebinding.test")
    small = Workload(users="1..5", items="1..20", candidates="4", distinct=20)
    with StubProcess(service="constant:1ms", servers=0) as stub:
        _, _, port = stub.url.rpartition(":")
        load = Load(f"http://rebinding.test:{port}", 100, 0.3, warmup=0, workload=small)
        with execute(load) as run:
            assert b"Host: rebinding.test:" in run.bank.wire[0]
            assert set(run.columns.bucket.tolist()) == {Bucket.OK}


def test_the_admin_api_that_was_checked_is_the_one_that_gets_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_once(monkeypatch, "rebinding.test")
    with StubProcess(service="constant:1ms", servers=0, admin_port=0, admin_token="secret") as stub:
        _, _, port = stub.admin_url.rpartition(":")
        admin = Admin(f"http://rebinding.test:{port}", "secret", timeout=5)
        assert admin.versions()
        with pytest.raises(TargetError, match="another machine"):
            admin.versions()


STORE_SCHEMA = FeatureSchema(
    name="small", history_length=4, item=(Categorical(name="item_id", vocabulary=99, width=2),)
)


def test_users_and_items_come_from_a_store(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path / 'store'}"

    async def fill() -> None:
        store = await feature_store.connect(url, STORE_SCHEMA, create=True)
        await store.put_items(np.array([30, 4, 7]), np.zeros(3, STORE_SCHEMA.item_dtype))
        await store.append(12, [4])
        await store.append(5, [7, 30])
        await store.close()

    asyncio.run(fill())
    assert read_ids(url, option="--items", column="item_id").tolist() == [4, 7, 30]
    assert read_ids(url, option="--users", column="user_id").tolist() == [5, 12]


def test_a_password_of_an_empty_store_is_not_repeated(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url.partition("?")[0]) as client:
        client.execute_command("ACL", "SETUSER", "load", "on", ">sesame", "~*", "&*", "+@all")
    url = redis_url.replace("redis://", "redis://load:sesame@")

    async def create() -> None:
        await (await feature_store.connect(url, STORE_SCHEMA, create=True)).close()

    asyncio.run(create())
    with pytest.raises(PopulationError, match=r"^--items: redis://… holds no items"):
        read_ids(url, option="--items", column="item_id")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1",
        "127.0.0.1:80",
        "http://",
        "http://u@127.0.0.1",
        "http://127.0.0.1:x",
        "http://127.0.0.1/?a=b",
    ],
)
def test_an_address_it_does_not_understand_is_refused(url: str) -> None:
    with pytest.raises(TargetError, match="url"):
        Target.parse(url)


def test_a_column_that_holds_no_ids_is_refused_by_file_and_column(tmp_path: Path) -> None:
    path = tmp_path / "ids.parquet"
    parquet.write_table(pa.table({"item_id": [True, False]}), path)
    with pytest.raises(PopulationError, match=f"{path}: column item_id: holds bool, not ids"):
        read_ids(str(path), option="--items", column="item_id")
