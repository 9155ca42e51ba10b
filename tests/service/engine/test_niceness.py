"""Threads yield by so much more than their process does; a refusal is a warning."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from service.engine import niceness
from service.engine.niceness import LOWEST, SHORT_TURN_S, add_niceness, short_turns
from service.settings import Settings
from tests.service.process import serving
from tests.service.world import World

# Root may set any priority; without this capability it is as an ordinary user in that.
UNPRIVILEGED = ("setpriv", "--bounding-set", "-sys_nice") if os.geteuid() == 0 else ()
NICE = 19 - 3  # place of the niceness in /proc/PID/stat, after the name


def in_a_thread(work: Callable[[], object]) -> int:
    """The thread's niceness after ``work``."""
    seen = list[int]()

    def run() -> None:
        work()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.parametrize("more", [0, 1, 5, LOWEST, 100])
def test_a_thread_yields_by_so_much_more_than_its_process(more: int) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
    assert in_a_thread(lambda: add_niceness(more)) == min(LOWEST, ours + more)
    assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == ours


def test_the_niceness_of_a_thread_is_never_lowered_nor_added_twice() -> None:
    def twice() -> None:
        add_niceness(5)
        add_niceness(5)
        add_niceness(2)

    ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
    assert in_a_thread(twice) == min(LOWEST, ours + 5)


def test_turns_with_the_gil_are_short_within_the_block_and_as_before_after_a_fault() -> None:
    before, within = sys.getswitchinterval(), list[float]()

    def fail() -> None:
        with short_turns():
            within.append(sys.getswitchinterval())
            raise OSError("of the block")

    with pytest.raises(OSError, match="of the block"):
        fail()
    assert within == [pytest.approx(SHORT_TURN_S)]
    assert sys.getswitchinterval() == before


def test_turns_with_the_gil_are_not_made_longer() -> None:
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-4)
        with short_turns():
            assert sys.getswitchinterval() <= 1e-4
    finally:
        sys.setswitchinterval(before)


def test_a_refusal_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(13, "Permission denied")

    niceness._warn.cache_clear()
    ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
    monkeypatch.setattr(os, "setpriority", refuse)
    with structlog.testing.capture_logs() as lines:
        assert in_a_thread(lambda: add_niceness(5)) == ours
        assert in_a_thread(lambda: add_niceness(5)) == ours
    assert [(line["log_level"], line["reason"]) for line in lines] == [
        ("warning", "[Errno 13] Permission denied")
    ]


@pytest.mark.parametrize("begun_at", [4, 11, LOWEST])
def test_a_service_that_is_nice_itself_scores(world: World, begun_at: int) -> None:
    """As systemd's ``Nice=`` starts it, without the right to raise a priority."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)  # of the run of tests: negative, too
    begun_at = max(ours, begun_at)
    under = ("nice", "-n", str(begun_at - ours), *UNPRIVILEGED)
    with serving(world.models, world.store, under=under) as service, service.client() as client:
        asked = {"user_id": 1, "candidates": world.ids[:2].tolist()}
        assert client.post("/v1/score", json=asked).status_code == 200
        tasks = Path(f"/proc/{service.process.pid}/task")
        found = [
            int(stat.read_text().rpartition(")")[2].split()[NICE]) for stat in tasks.glob("*/stat")
        ]
        told = service.log.read_text()
        main = (tasks / str(service.process.pid) / "stat").read_text()
    assert int(main.rpartition(")")[2].split()[NICE]) == begun_at
    engine_niceness = Settings.model_fields["engine_niceness"].default
    assert min(LOWEST, begun_at + engine_niceness) in found
    assert "PermissionError" not in told
