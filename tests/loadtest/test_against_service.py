"""The real service, a real bundle, a real store: every score is the offline one."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtest.analysis.results import summarise
from loadtest.generator.id_kind import id_kind
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import Workload
from loadtest.oracle.bundle_oracle import BundleOracle, OracleError
from loadtest.oracle.comparison import UnknownVersion, check_run
from loadtest.report.summary import show
from loadtest.target import Target
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def service(world: World) -> Iterator[Service]:
    with serving(world.models, world.store, QIN_DEADLINE_MS=PATIENCE_MS) as running:
        yield running


@pytest.fixture(scope="module")
def oracle(world: World) -> Iterator[BundleOracle]:
    offline = BundleOracle(world.models, world.store)
    yield offline
    offline.close()


def workloads(world: World) -> dict[str, Workload]:
    plain = Workload(users="1..40", items=world.store, candidates="1..200", distinct=300)
    return {
        "known items, stored histories": plain,
        "unknown items": replace(plain, items="1..1600", candidates="60"),
        "the best few": replace(plain, top_k=7),
        "histories sent along": replace(plain, inline_history=world.schema.history_length),
    }


NAMES = (
    "known items, stored histories",
    "unknown items",
    "the best few",
    "histories sent along",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_score_is_the_offline_one(
    name: str, world: World, service: Service, oracle: BundleOracle
) -> None:
    load = Load(
        service.url, rate=40, seconds=2, warmup=0.2, workload=workloads(world)[name],
        stages=True, keep_answers=True,
    )  # fmt: skip
    with execute(load) as run:
        report = check_run(run, oracle)
        result = summarise(run, [], report)
    assert result["buckets"]["ok"] == result["requests"] == report.checked, result["statuses"]
    assert (report.wrong_scores, report.mixed_versions) == (0, 0)
    assert 0 < report.worst_error <= 1e-5
    candidates = result["candidates"]
    assert candidates["asked"] >= result["requests"]
    assert (candidates["unknown"] > 0) == (name == "unknown items")
    shown = io.StringIO()
    show(Console(file=shown, width=200), result)
    assert ("candidates are unknown to the service" in shown.getvalue()) == (
        name == "unknown items"
    )
    assert result["versions"] == {world.bundle.version: result["requests"]}
    assert result["stages"]["unaccounted_share"] <= 0.05
    assert "rank" in result["stages"]["mean_ms"]


@pytest.mark.parametrize("users", ["1..40", None])
def test_answers_of_cold_users_are_counted_and_default_users_warned_of(
    users: str | None, world: World, service: Service
) -> None:
    asked = Workload(items=world.store, candidates="8", user_zipf=0, distinct=300)
    if users is not None:
        asked = replace(asked, users=users)
    with execute(Load(service.url, rate=60, seconds=1, warmup=0.2, workload=asked)) as run:
        result = summarise(run, [])
        cold = sum(
            run.bank.document(entry)["user_id"] not in world.users
            for entry in run.columns.entry[run.measured].tolist()
        )
    assert result["buckets"]["ok"] == result["requests"]
    assert result["cold_users"] == {
        "answers": result["requests"],
        "cold": cold,
        "default_users": users is None,
    }
    shown = io.StringIO()
    show(Console(file=shown, width=200), result)
    assert f"cold users: {cold:,} of {result['requests']:,} answers" in shown.getvalue()
    assert ("--users lmdb://…" in shown.getvalue()) == (users is None)


def test_recorded_decimal_strings_are_compared_whichever_form_the_answer_has(
    world: World, service: Service, oracle: BundleOracle, tmp_path: Path
) -> None:
    items = [str(number) for number in (*world.ids[:9].tolist(), world.ids[0])]
    bodies: list[dict[str, Any]] = [
        {"user_id": "3", "candidates": items},
        {"user_id": 3, "candidates": items, "ids_as_strings": True},
        {"user_id": "3", "candidates": world.ids[:9].tolist(), "ids_as_strings": True},
        {"user_id": "3", "candidates": items, "top_k": 4, "history": ["4", *items[:2]]},
        {"user_id": "3", "candidates": ["007", *items], "top_k": 4, "ids_as_strings": True},
    ]
    log = tmp_path / "log"
    lines = [json.dumps({"at": n / 20, **body}) for n, body in enumerate(4 * bodies)]
    log.write_text("\n".join(lines))
    ids = id_kind(Target.parse(service.url))
    assert ids == "numeric"
    with execute(Load(service.url, replay=log, keep_answers=True, ids=ids)) as run:
        report = check_run(run, oracle)
        result = summarise(run, [], report)
    assert result["buckets"]["ok"] == report.checked == len(lines), result["reasons"]


def test_clicks_go_where_they_are_taken_with_a_key_of_their_own(
    world: World, tmp_path: Path
) -> None:
    key, token = "a-key-for-the-public-port", "a-token-of-the-admin-port"
    variables = {"QIN_EVENTS_ON": "admin", "QIN_API_KEYS": f"me:{key}", "QIN_ADMIN_TOKEN": token}
    with serving(world.models, world.store, **variables) as service:
        mixed = Workload(users="5001..5040", items=world.store, candidates="8", events=0.5)
        load = Load(
            service.url, rate=50, seconds=1, warmup=0, workload=mixed, api_key=key,
            events_url=f"http://127.0.0.1:{service.admin_port}", events_key=token,
        )  # fmt: skip
        with execute(load) as run:
            result = summarise(run, [])
            kinds = set(run.bank.kind.tolist())
        with execute(replace(load, events_url=None)) as run:
            refused = summarise(run, [])["statuses"]
    assert kinds == {0, 1}
    assert result["buckets"]["ok"] == result["requests"], result["statuses"]
    assert refused.keys() == {"200", "401"}
    said = json.dumps(result)
    assert key not in said
    assert token not in said


def test_the_oracle_says_what_it_lacks(world: World, oracle: BundleOracle, tmp_path: Path) -> None:
    with pytest.raises(UnknownVersion):
        oracle.scores("other", {"user_id": 1, "candidates": [1]})
    with pytest.raises(OracleError, match="no bundle"):
        BundleOracle(tmp_path, world.store)


def test_a_store_that_the_oracle_cannot_open_is_an_error_of_one_line(world: World) -> None:
    bundle = world.models / world.bundle.version
    for path in (world.models, bundle):
        arguments = ["--oracle", str(path), "--store", "redis://127.0.0.1:1"]
        line = [sys.executable, "-m", "loadtest", "run", "http://127.0.0.1:1", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.startswith("error: oracle: redis 127.0.0.1:1: ")
        assert "Traceback" not in done.stderr


def test_the_oracle_names_and_passes_over_a_bad_bundle(world: World, tmp_path: Path) -> None:
    models = Path(shutil.copytree(world.models, tmp_path / "models"))
    good = next(models.iterdir()).name
    for bad in ("cut", "odd"):
        shutil.copytree(models / good, models / bad)
    (models / "cut" / "manifest.json").write_text("{")  # "odd": its manifest names another folder
    judge = BundleOracle(models, world.store)
    assert judge.versions == (good,)
    named = " ".join(map(str, judge.skipped))
    assert f"{models / 'cut'}/manifest.json" in named
    assert f"{models / 'odd'}/manifest.json" in named
    assert judge.scores(good, {"user_id": 1, "candidates": world.ids[:3].tolist()}).shape == (3,)
    judge.close()
    shutil.rmtree(models / good)
    with pytest.raises(OracleError, match=r"no bundle that can be used: .*cut"):
        BundleOracle(models, world.store)
