"""The real service on mapped stores: every score is the offline one, with texts of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from loadtest.analysis.results import summarise
from loadtest.generator.columns import Reason
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import EVENT, Workload
from loadtest.oracle.bundle_oracle import BundleOracle
from loadtest.oracle.comparison import check_run
from tests.feature_store.redis_servers import Server
from tests.loadtest.canned import falsified
from tests.service.mapped_world import MappedWorld, mapped_in
from tests.service.process import serving
from tests.service.world import make_world


@dataclass(frozen=True, slots=True)
class Served:
    """A mapped world, and the URL of a service of it."""

    world: MappedWorld
    url: str

    def workload(self, **options: Any) -> Workload:
        store = self.world.store
        workload = Workload(users=store, items=store, candidates="1..200", distinct=300)
        return replace(workload, **options)

    def load(self, workload: Workload, url: str | None = None, **options: Any) -> Load:
        base = Load(
            url or self.url, rate=40, seconds=3, warmup=0.2, workload=workload, keep_answers=True,
            ids="mapped", timeout=30,
        )  # fmt: skip
        return replace(base, **options)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("mapped")
    url = f"lmdb://{folder / 'mapped'}"
    if request.param == "redis":
        server: Server = request.getfixturevalue("redis")
        url = f"redis://127.0.0.1:{server.port}?prefix=t{uuid4().hex}"
    world = mapped_in(make_world(folder), url)
    with serving(world.models, world.store, **PATIENT) as service:
        yield Served(world, service.url)


@pytest.fixture
def oracle(served: Served) -> Iterator[BundleOracle]:
    """One for each test: it keeps the histories that it has read."""
    offline = BundleOracle(served.world.models, served.world.store)
    yield offline
    offline.close()


# A busy test machine is no fault of service and store.
PATIENT = {"QIN_STORE_TIMEOUT_MS": "5000", "QIN_DEADLINE_MS": "10000"}
WORKLOADS: dict[str, dict[str, Any]] = {
    "known items, stored histories": {},
    "texts that are unknown": {"items": "1..1600", "candidates": "60"},
    "the best few": {"top_k": 7},
    "histories sent along": {"inline_history": 12},
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_score_of_texts_is_the_offline_one(
    name: str, served: Served, oracle: BundleOracle
) -> None:
    with execute(served.load(served.workload(**WORKLOADS[name]))) as run:
        report = check_run(run, oracle)
        result = summarise(run, [], report)
    assert result["buckets"]["ok"] == result["requests"] == report.checked, result["reasons"]
    assert (report.wrong_scores, report.mixed_versions, report.unchecked) == (0, 0, 0)
    assert 0 < report.worst_error <= 1e-5
    assert (result["candidates"]["unknown"] > 0) == (name == "texts that are unknown")


def test_clicks_of_texts_are_stored_and_later_scores_are_the_offline_ones(
    served: Served, oracle: BundleOracle
) -> None:
    users = "1..60"  # texts of users, some of them new
    mixed = served.workload(users=users, candidates="1..50", events=0.1)
    with execute(served.load(mixed)) as run:
        report = check_run(run, oracle)
        result = summarise(run, [], report)
        entries = np.flatnonzero(run.bank.kind == EVENT).tolist()
        clicks = [run.bank.document(entry) for entry in entries]
    assert result["buckets"]["ok"] == result["requests"], result["statuses"]
    assert report.checked + report.unchecked == result["requests"] - result["events"]
    assert report.wrong_scores == 0 < min(report.checked, report.unchecked, result["events"])
    with execute(served.load(replace(mixed, events=0.0))) as run:
        report = check_run(run, oracle)
    assert (report.checked, report.wrong_scores) == (run.count, 0)
    asked = {"user_id": clicks[-1]["user_id"], "candidates": served.world.items[:5]}
    (version,) = oracle.versions
    found = oracle.scores(version, asked)
    without = oracle.scores(version, {**asked, "history": []})
    assert np.abs(found - without).max() > 1e-6


def test_a_wrong_text_and_a_wrong_score_are_found_answer_by_answer(
    served: Served, oracle: BundleOracle
) -> None:
    def other_text(answer: dict[str, Any]) -> None:
        answer["item_ids"][-1] += "?"

    def other_score(answer: dict[str, Any]) -> None:
        answer["scores"][-1] = abs(answer["scores"][-1] - 2e-4)

    for change, reason in ((other_text, Reason.BODY), (other_score, Reason.SCORES)):
        with falsified(served.url, change, every=9) as (url, edited):
            load = served.load(served.workload(candidates="5..20"), url, seconds=2, warmup=0)
            with execute(load) as run:
                check_run(run, oracle)
                result = summarise(run, [])
        assert len(edited) > 5
        assert result["reasons"] == {reason.name.lower(): len(edited)}
        assert result["buckets"]["wrong"] == len(edited)
        assert result["buckets"]["ok"] == result["requests"] - len(edited)


def command(*arguments: str) -> str:
    """What ``python -m loadtest`` prints; it must succeed."""
    line = [sys.executable, "-m", "loadtest", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_log_is_planned_from_the_store_replayed_and_checked_by_command(
    served: Served, tmp_path: Path
) -> None:
    store, log = served.world.store, tmp_path / "log"
    drawn = ["--users", store, "--items", store, "--candidates", "1..50", "--warmup", "0"]
    timed = ["--rate", "40", "--duration", "2s"]
    command("plan", served.url, *drawn, *timed, "--out", str(log))
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert {text for line in asked for text in line["candidates"]} <= set(served.world.items)
    checked = ["--oracle", str(served.world.models), "--store", store, "--json"]
    patient = ["--timeout", "30s", "--slo", "p50=10s"]  # late sends are no fault either
    result = json.loads(command("run", served.url, "--replay", str(log), *checked, *patient))
    assert result["settings"]["ids"] == "mapped"
    assert result["buckets"]["ok"] == result["oracle"]["checked"] == len(asked)
    assert result["oracle"]["wrong_scores"] == 0
