"""The page Versions: what it lists, commands with confirmations, and who did what."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.console.pages import ago, iso, size
from service.console.shadow_picture import spearman
from tests.service.console.conftest import (
    ANN,
    QUIET,
    TOKENS,
    Served,
    browser_of,
    csrf_of,
    log_in,
    with_many_versions,
)
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import serving

FAR_S = 60.0
ONE = "/console/versions/small-1"


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Served]:
    """Of one test: its versions change, so it finds no copies of them."""
    world, _ = two_versions(tmp_path)
    settings = {"QIN_PRIVATE": str(tmp_path / "private"), "QIN_ADMIN_TOKEN": TOKENS, **QUIET}
    with serving(world.models, world.store, **settings) as service:
        yield Served(service, world)


@pytest.fixture
def person(two: Served) -> Iterator[httpx.Client]:
    with browser_of(two) as client:
        assert log_in(client).status_code == 303
        yield client


def act(client: httpx.Client, version: str, action: str, **form: str) -> httpx.Response:
    path = f"/console/versions/{version}"
    csrf = csrf_of(client, "/console")
    answer = client.post(f"{path}/{action}", data={"csrf": csrf, **form})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(path)
    return answer


def state_of(served: Served, version: str) -> dict:  # type: ignore[type-arg]
    with served.service.admin(ANN) as api:
        found: dict = api.get(f"/admin/models/{version}").json()  # type: ignore[type-arg]
    return found


def until(served: Served, version: str, state: str) -> None:
    deadline = time.monotonic() + FAR_S
    while state_of(served, version)["state"] != state:
        assert time.monotonic() < deadline, state_of(served, version)
        time.sleep(0.05)


def test_every_version_is_listed_with_its_quality(ann: httpx.Client) -> None:
    page = ann.get("/console/versions")
    assert page.status_code == 200
    for text in ("small-1", "small-2", "state-active", "the service, "):
        assert text in page.text
    assert re.search(r"\d\.\de-\d\d", page.text)  # parity
    one = ann.get(ONE).text
    for text in ("golden answers", "parameters", "Load", "Canary", "Shadow"):
        assert text in one
    assert ann.get("/console/versions/none").status_code == 404
    assert ann.get(f"{ONE}/explode").status_code == 404


def test_a_confirmation_says_what_will_happen_and_does_nothing(
    served: Served, ann: httpx.Client
) -> None:
    for action, said in (
        ("load", "answers no request"),
        ("activate", "in place of small-2"),
        ("canary", "this share of the users"),
        ("shadow", "No client sees its scores"),
    ):
        page = ann.get(f"{ONE}/{action}")
        assert page.status_code == 200
        assert said in page.text
        assert 'method="post"' in page.text
    assert state_of(served, "small-1")["state"] == "available"


def test_load_canary_promote_and_roll_back(two: Served, person: httpx.Client) -> None:
    act(person, "small-1", "load")
    until(two, "small-1", "ready")
    act(person, "small-1", "canary", share="25")
    assert "canary 25%" in person.get(ONE).text
    act(person, "small-1", "promote")
    until(two, "small-1", "active")
    act(person, "small-1", "rollback")
    until(two, "small-2", "active")
    act(person, "small-1", "unload")
    until(two, "small-1", "unloaded")
    page = person.get("/console/versions").text
    for action in ("load", "canary 25%", "promote", "rollback", "unload"):
        assert f"<td>{action}</td>" in page
    lines = [json.loads(line) for line in two.service.log.read_text().splitlines()]
    logged = [(one["action"], one["who"]) for one in lines if one["event"] == "admin"]
    assert ("promote", "ann") in logged


def test_shadow_is_drawn_against_the_answers(two: Served, person: httpx.Client) -> None:
    act(person, "small-1", "shadow", share="100")
    until(two, "small-1", "ready")
    ids = two.world.ids[:15].tolist()
    with two.service.client() as client:
        for user in range(1, 20):
            client.post("/v1/score", json={"user_id": user, "candidates": ids})
            time.sleep(0.02)
    deadline = time.monotonic() + FAR_S
    while "rank correlation" not in person.get(ONE).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    page = person.get(ONE).text
    assert re.search(r'class="dots" d="M[\d.]+ [\d.]+h0', page)
    assert "Spearman" in page
    assert "median of the graphs" in page


@pytest.mark.parametrize("share", ["", "-1", "101", "nan", "x", "1e999"])
def test_a_share_that_is_none_is_refused(two: Served, person: httpx.Client, share: str) -> None:
    form = {"csrf": csrf_of(person, "/console"), "share": share}
    refused = person.post(f"{ONE}/canary", data=form)
    assert refused.status_code == 422
    assert "share: should be a number" in refused.text
    assert state_of(two, "small-1")["state"] == "available"


def test_what_a_command_is_refused_for_is_shown(two: Served, person: httpx.Client) -> None:
    act(person, "small-2", "unload")
    page = person.get("/console/versions/small-2").text
    assert "active; activate another one first" in page
    assert state_of(two, "small-2")["state"] == "active"


def test_why_a_version_failed_is_shown(two: Served, person: httpx.Client) -> None:
    file = two.world.models / "small-1" / "ranker.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    act(person, "small-1", "load")
    until(two, "small-1", "failed")
    page = person.get("/console/versions").text
    assert file.name in page
    assert "state-failed" in page


def test_no_command_without_csrf_token_or_where_it_reads_only(
    served: Served, unguarded: Served, ann: httpx.Client
) -> None:
    assert ann.post(f"{ONE}/load", data={"csrf": "0" * 64}).status_code == 403
    with browser_of(unguarded) as client:
        page = client.get(f"{ONE}/load").text
        assert "disabled" in page
        csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
        assert csrf is not None
        refused = client.post(f"{ONE}/load", data={"csrf": csrf[1]})
        assert refused.status_code == 403
        assert "read-only" in refused.text
    assert state_of(served, "small-1")["state"] == "available"


def test_five_hundred_versions_are_shown_in_pages_and_found(tmp_path: Path) -> None:
    world = with_many_versions(tmp_path)
    with (
        serving(world.models, world.store, QIN_ADMIN_TOKEN=TOKENS, **QUIET) as service,
        browser_of(Served(service, world)) as client,
    ):
        log_in(client)
        page = client.get("/console/versions").text
        assert "502 versions" in page
        assert "page 1 of 11" in page
        assert len(page) < 120_000
        found = client.get("/console/versions?q=many-499").text
        assert 'href="/console/versions/many-499"' in found
        assert "many-498" not in found
        assert client.get("/console/versions?page=999").status_code == 200
        assert client.get("/console/versions?page=-3").status_code == 200


def test_the_audit_list_outlives_the_process(tmp_path: Path) -> None:
    world, _ = two_versions(tmp_path)
    kept = {"QIN_PRIVATE": str(tmp_path / "private"), "QIN_ADMIN_TOKEN": TOKENS, **QUIET}
    with (
        serving(world.models, world.store, **kept) as service,
        browser_of(Served(service, world)) as client,
    ):
        log_in(client)
        act(client, "small-1", "load")
        until(Served(service, world), "small-1", "ready")
    with (
        serving(world.models, world.store, **kept) as service,
        browser_of(Served(service, world)) as client,
    ):
        log_in(client)
        assert "<td>ann</td><td>load</td>" in client.get("/console/versions").text
    assert (tmp_path / "private" / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_spearman_is_pearson_of_the_ranks() -> None:
    random = np.random.default_rng(3)
    pairs = random.integers(0, 9, (50, 2)).astype(float)
    ranks = np.array([[(np.sum(c < v) + np.sum(c <= v) + 1) / 2 for v in c] for c in pairs.T])
    assert spearman(pairs) == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert spearman(np.ones((4, 2))) is None


def test_times_and_sizes_are_written_for_people() -> None:
    assert iso(0) == "1970-01-01 00:00:00Z"
    assert ago(time.time() - 7200) == "2 h ago"
    assert ago("1970-01-01T00:00:00+00:00").endswith(" d ago")
    assert [size(n) for n in (12, 3400, 5_600_000, 7_890_000_000)] == [
        "12 bytes",
        "3.4 kB",
        "5.6 MB",
        "7.89 GB",
    ]
