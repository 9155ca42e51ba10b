"""The page Load: off by default, confirmed by typing, bounded in time, one at a time, reported."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.service.console.conftest import (
    QUIET,
    TOKENS,
    Served,
    browser_of,
    csrf_of,
    log_in,
)
from tests.service.process import serving
from tests.service.world import World

FAR_S = 120.0
SMALL = {"kind": "run", "rate": "20", "seconds": "2", "candidates": "5"}
RUNNING = 'role="status">running<'
TYPED = {"confirmation": "load this service"}


@pytest.fixture(scope="module")
def loading(world: World) -> Iterator[Served]:
    on = {"QIN_CONSOLE_LOADTEST": "on", "QIN_ADMIN_TOKEN": TOKENS, **QUIET}
    with serving(world.models, world.store, **on) as service:
        yield Served(service, world)


@pytest.fixture
def person(loading: Served) -> Iterator[httpx.Client]:
    with browser_of(loading) as client:
        log_in(client)
        yield client


def start(client: httpx.Client, **form: str) -> httpx.Response:
    csrf = csrf_of(client, "/console")
    return client.post("/console/load", data={"csrf": csrf, **SMALL, **TYPED, **form})


def outcome(client: httpx.Client) -> str:
    deadline = time.monotonic() + FAR_S
    while RUNNING in (page := client.get("/console/load").text):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return page


def children(served: Served) -> list[psutil.Process]:
    everyone = psutil.Process(served.service.process.pid).children(recursive=True)
    return [one for one in everyone if "loadtest" in one.cmdline()]


def test_it_is_off_by_default(ann: httpx.Client) -> None:
    assert ann.get("/console/load").status_code == 404
    assert ">Load</a>" not in ann.get("/console").text


def test_where_the_console_reads_only_none_is_started(world: World) -> None:
    with (
        serving(world.models, world.store, QIN_CONSOLE_LOADTEST="on", **QUIET) as service,
        browser_of(served := Served(service, world)) as client,
    ):
        page = client.get("/console/load").text
        assert "<form" not in page
        csrf = csrf_of(client, "/console/try")
        for path in ("/console/load", "/console/load/stop"):
            refused = client.post(path, data={"csrf": csrf, **SMALL, **TYPED})
            assert refused.status_code == 403
            assert "read-only" in refused.text
        assert not children(served)


def test_a_run_is_watched_and_its_report_opened(loading: Served, person: httpx.Client) -> None:
    assert start(person).status_code == 303
    assert RUNNING in person.get("/console/load").text
    second = start(person, candidates="7")
    assert second.status_code == 409
    assert "is running; stop it first" in second.text
    assert 'value="7"' in second.text  # nothing is to be typed again
    page = outcome(person)
    assert re.search(r"<p>done", page), page
    assert re.search(r"cold users: 0 of \d+ answers", page), page  # it asks for the store's
    found = re.search(r'href="(/console/load/[\w-]+)">report', page)
    assert found is not None
    report = person.get(found[1])
    assert report.status_code == 200
    assert "sandbox" in report.headers["content-security-policy"]
    assert "<svg" in report.text
    assert not children(loading)
    lines = [json.loads(line) for line in loading.service.log.read_text().splitlines()]
    entry = next(one for one in lines if one.get("action") == "load test: run")
    assert (entry["who"], entry["outcome"], entry["rate"]) == ("ann", "done", 20)
    assert person.get("/console/load/20260101T000000-abcdef").status_code == 404
    assert person.get("/console/load/..%2f..%2faudit.jsonl").status_code == 404


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"confirmation": ""}, "confirmation"),
        ({"confirmation": "yes"}, "confirmation"),
        ({"kind": "soak"}, "kind"),
        ({"rate": "0"}, "rate"),
        ({"rate": "1e9"}, "rate"),
        ({"rate": "nan"}, "rate"),
        ({"seconds": "301"}, "seconds"),
        ({"candidates": "-1"}, "candidates"),
    ],
)
def test_what_is_not_confirmed_or_bounded_does_not_start(
    loading: Served, person: httpx.Client, form: dict[str, str], said: str
) -> None:
    refused = start(person, **form)
    assert refused.status_code == 422
    assert f"{said}:" in refused.text
    assert not children(loading)


def test_it_is_stopped_by_a_person(loading: Served, person: httpx.Client) -> None:
    start(person, seconds="60")
    deadline = time.monotonic() + FAR_S
    while not children(loading):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    person.post("/console/load/stop", data={"csrf": csrf_of(person, "/console")})
    assert "<p>stopped" in outcome(person)
    assert not children(loading)


def test_the_child_gets_none_of_the_services_secrets(loading: Served, person: httpx.Client) -> None:
    start(person, seconds="20")
    deadline = time.monotonic() + FAR_S
    while not (found := children(loading)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    told = [*found[0].environ().values(), *found[0].cmdline()]
    assert not any(
        token in text for text in told for token in TOKENS.replace(":", " ").split()[1::2]
    )
    person.post("/console/load/stop", data={"csrf": csrf_of(person, "/console")})
    outcome(person)


def test_a_stop_of_the_service_ends_it(loading: Served, person: httpx.Client) -> None:
    start(person, seconds="60")
    deadline = time.monotonic() + FAR_S
    while not (found := children(loading)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    loading.service.process.send_signal(signal.SIGTERM)
    assert loading.service.process.wait(30) == 0
    gone, alive = psutil.wait_procs(found, timeout=10)
    assert gone
    assert not alive
