"""The console of a service of two workers: whichever answers, it is the same."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.service.console.conftest import (
    ANN,
    QUIET,
    TOKENS,
    Served,
    browser_of,
    csrf_of,
    log_in,
)
from tests.service.console.test_load import RUNNING, SMALL, TYPED
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import serving
from tests.service.processes.test_workers import ready_lines, workers_of

FAR_S = 30.0
FRAME = re.compile(r'id="frame">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    world, _ = two_versions(tmp_path_factory.mktemp("workers"))
    two = {"QIN_WORKERS": "2", "QIN_THREADS": "1", "QIN_CONSOLE_LOADTEST": "on"}
    with serving(world.models, world.store, QIN_ADMIN_TOKEN=TOKENS, **two, **QUIET) as service:
        until(lambda: ready_lines(service) == 2)
        yield Served(service, world)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + FAR_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def frame_of(client: httpx.Client) -> dict[str, Any]:
    """What the page Now begins with; the first process is the one that answers."""
    found = FRAME.search(client.get("/console").text)
    assert found is not None
    frame: dict[str, Any] = orjson.loads(found[1])
    return frame


@pytest.fixture
def each(several: Served) -> Iterator[list[httpx.Client]]:
    """A connection to each of the workers, with the cookies of one session."""
    with ExitStack() as stack:
        yield connections(several, stack)


def connections(several: Served, stack: ExitStack) -> list[httpx.Client]:
    """The first worker has the admin port's connections, the other those that come while its event
    loop is late."""
    first, second = (stack.enter_context(browser_of(several)) for _ in range(2))
    assert log_in(first).status_code == 303
    second.cookies.update(first.cookies)
    until(lambda: len(frame_of(first)["processes"]) == 2)
    pid = pid_of(several, 0)
    os.kill(pid, signal.SIGSTOP)
    try:
        number = frame_of(second)["processes"][0]["number"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert number == 1
    return [first, second]


def pid_of(several: Served, number: int) -> int:
    """Of the worker with that number, by its open files."""
    for pid in workers_of(several.service):
        maps = Path(f"/proc/{pid}/maps").read_text()
        if re.search(rf"rw-s .*/{number}\.recent", maps):
            return pid
    raise AssertionError(f"no worker {number}")


def test_workers_are_shown_each_and_together(several: Served, each: list[httpx.Client]) -> None:
    item, url = int(several.world.ids[0]), f"{several.service.url}/v1/score"

    def both_have_answered() -> bool:
        for _ in range(4):  # a connection each: they go to both
            body = {"user_id": 1, "candidates": [item]}
            assert httpx.post(url, json=body, trust_env=False).is_success
        rates = [one["rate"] for one in frame_of(each[0])["processes"]]
        return len(rates) == 2 and min(rates) > 0

    until(both_have_answered)
    frames = [frame_of(client) for client in each]
    for frame in frames:
        assert sorted(one["number"] for one in frame["processes"]) == [0, 1]
        assert frame["windows"]["1"]["rate"] > 0


def test_a_session_that_was_logged_out_is_over_at_every_worker(each: list[httpx.Client]) -> None:
    first, second = each
    cookies = dict(first.cookies)
    with second.stream("GET", "/console/stream") as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert next(lines).startswith("retry: ")
        assert next(lines).startswith("data: ")
        assert first.post("/console/logout", data={"csrf": csrf_of(first)}).status_code == 303
        assert "event: over" in list(lines)  # and it ends
    for client in each:
        client.cookies.clear()
        client.cookies.update(cookies)
        assert client.get("/console").status_code == 303
        assert client.get("/console/series").status_code == 401


def test_a_load_test_is_seen_and_stopped_at_every_worker(each: list[httpx.Client]) -> None:
    first, second = each
    form = {**SMALL, **TYPED, "seconds": "60", "csrf": csrf_of(first)}
    assert first.post("/console/load", data=form).status_code == 303
    for client in each:
        page = client.get("/console/load").text
        assert RUNNING in page
        assert "by ann" in page
    assert second.post("/console/load", data=form).status_code == 409
    second.post("/console/load/stop", data={"csrf": form["csrf"]})
    until(lambda: all("<p>stopped" in one.get("/console/load").text for one in each))


def test_marks_are_the_same_everywhere_and_outlive_a_worker(
    several: Served, each: list[httpx.Client]
) -> None:
    with several.service.admin(ANN) as api:
        assert api.post("/admin/models/small-1/activate").status_code == 200
    switched = {"what": "active", "text": "small-1"}

    def marks(client: httpx.Client) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get("/console/series?minutes=60").json()["marks"]
        return found

    def texts(client: httpx.Client) -> list[dict[str, Any]]:
        return [{"what": mark["what"], "text": mark["text"]} for mark in marks(client)]

    until(lambda: all(switched in texts(client) for client in each))
    before = marks(each[0])
    assert marks(each[1]) == before
    ready = ready_lines(several.service)
    os.kill(pid_of(several, 0), signal.SIGKILL)
    until(lambda: ready_lines(several.service) == ready + 1)
    with ExitStack() as stack:
        both = connections(several, stack)
        until(lambda: all(frame_of(client)["marks"] == len(before) for client in both))
        assert marks(both[0]) == marks(both[1]) == before  # nothing was switched
