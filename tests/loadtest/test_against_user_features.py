"""The real service of a model with user and request features: every answer is the offline one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from loadtest.analysis.results import summarise
from loadtest.analysis.slo import Slo
from loadtest.generator.columns import Reason
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import Workload
from loadtest.oracle.bundle_oracle import BundleOracle
from loadtest.oracle.comparison import OracleReport, check_run
from loadtest.report.page import bucket_section
from loadtest.report.summary import show
from tests.loadtest.canned import falsified
from tests.service.process import Service, serving
from tests.service.user_world import (
    REQUEST_FEATURES,
    USER_FEATURES,
    UserWorld,
    make_mapped_users,
    make_user_world,
)

# A busy test machine is no fault of service and store.
PATIENT = {"QIN_STORE_TIMEOUT_MS": "5000", "QIN_DEADLINE_MS": "10000"}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> UserWorld:
    return make_user_world(tmp_path_factory.mktemp("users"))


@pytest.fixture(scope="module")
def service(users: UserWorld) -> Iterator[Service]:
    with serving(users.world.models, users.world.store, **PATIENT) as running:
        yield running


def load_of(users: UserWorld, url: str, **options: Any) -> Load:
    """Of users with history and record, with one of both, and with none."""
    models, store = str(users.world.models), users.world.store
    workload = Workload(users="1..115", items=store, candidates="1..80", features=models)
    return Load(
        url, rate=40, seconds=3, warmup=0.2, workload=workload, keep_answers=True, timeout=30,
        **options,
    )  # fmt: skip


def judged(load: Load, oracle: BundleOracle) -> tuple[OracleReport, dict[str, Any]]:
    with execute(load) as run:
        report = check_run(run, oracle)
        # With a target far away the generator's lag on a busy machine makes no run invalid.
        return report, summarise(run, [Slo.parse("p99=60s")], report)


def test_every_score_and_every_missing_feature_is_the_offline_one(
    users: UserWorld, service: Service
) -> None:
    oracle = BundleOracle(users.world.models, users.world.store)
    report, result = judged(load_of(users, service.url), oracle)
    oracle.close()
    assert result["buckets"]["ok"] == result["requests"] == report.checked, result["reasons"]
    assert (report.wrong_scores, report.wrong_features, report.mixed_versions) == (0, 0, 0)
    assert 0 < report.worst_error <= 1e-5
    assert set(report.defaulted) == {*USER_FEATURES, *REQUEST_FEATURES}
    assert all(0 < count < report.checked for count in report.defaulted.values())
    assert not report.ignored
    sent = result["features"]
    assert (sent["requests"], list(sent["given"])) == (report.checked, REQUEST_FEATURES)
    assert all(0.7 < count / report.checked < 1 for count in sent["given"].values())
    shown = io.StringIO()
    show(Console(file=shown, width=200), result)
    lines = [line for line in shown.getvalue().splitlines() if "features" in line]
    assert lines[0].startswith("request features sent: device ")
    assert lines[1].startswith("features without a value, of the answers checked: ")
    assert f"hour {report.defaulted['hour'] / report.checked:.1%}" in lines[1]
    assert orjson.loads(orjson.dumps(result))["oracle"]["defaulted"] == report.defaulted
    assert any(note.startswith("Request features sent: ") for note in bucket_section(result).notes)


def test_users_by_text_have_the_same_features(users: UserWorld, tmp_path: Path) -> None:
    mapped = make_mapped_users(users, tmp_path)
    with serving(mapped.models, mapped.store, **PATIENT) as service:
        load = load_of(users, service.url, ids="mapped")
        oracle = BundleOracle(mapped.models, mapped.store)
        workload = replace(load.workload, users=mapped.store, items=mapped.store)
        report, result = judged(replace(load, workload=workload), oracle)
        oracle.close()
    assert result["buckets"]["ok"] == result["requests"] == report.checked, result["reasons"]
    assert report.wrong_scores == report.wrong_features == 0 < report.worst_error <= 1e-5
    assert 0 < report.defaulted["taste"] < report.checked


def test_answers_that_name_other_features_are_found_one_by_one(
    users: UserWorld, service: Service
) -> None:
    def drop(answer: dict[str, Any]) -> None:
        del answer["defaulted"]

    def add(answer: dict[str, Any]) -> None:
        answer["ignored"] = ["minute"]

    for change in (drop, add):
        with falsified(service.url, change, every=9) as (url, edited):
            oracle = BundleOracle(users.world.models, users.world.store)
            report, result = judged(load_of(users, url), oracle)
            oracle.close()
        assert result["reasons"] == {Reason.FEATURES.name.lower(): report.wrong_features}
        assert 0 < report.wrong_features <= len(edited)  # the warm-up's are not counted
        assert (report.wrong_scores, result["verdict"]) == (0, "fail")
