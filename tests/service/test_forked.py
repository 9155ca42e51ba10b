"""Services of tests are forked; those of measurements are interpreters of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.forked import Forked
from tests.service.process import START_TIMEOUT_S, start
from tests.service.world import World

INTERRUPTED = """
import os, signal, sys, time
from tests.service.process import start, wait_ready
from tests.service.forked import Forked

service = start("--bundle", sys.argv[1], "--store", sys.argv[2])
assert isinstance(service.process, Forked)
wait_ready(service)
try:
    os.killpg(0, signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", service.process.wait(60))
service.remove()
again = start("--help")
print("again", again.process.wait(60))
again.remove()
"""


def ended(*options: str) -> type:
    service = start(*options)
    try:
        assert service.process.wait(START_TIMEOUT_S) == 0, service.log.read_text()
        return type(service.process)
    finally:
        service.remove()


def test_services_are_forked_in_tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended("--help") is Forked
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert ended("--help") is subprocess.Popen


def test_after_an_interrupt_of_the_group_services_end_and_are_reaped(
    world: World,
) -> None:
    """As by Ctrl-C: the service drains, and the process that forks answers still."""
    command = [sys.executable, "-c", INTERRUPTED, str(world.models), world.store]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=240, start_new_session=True, check=False
    )
    assert found.stdout.splitlines() == ["interrupted 0", "again 0"], found.stderr
    assert found.stderr == ""


def test_one_that_was_not_started_is_closed_without_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(pid: int) -> int:
        raise OSError("no descriptors")

    monkeypatch.setattr(os, "pidfd_open", fails)
    with Path(os.devnull).open("wb") as output, pytest.raises(OSError, match="no descriptors"):
        Forked(("serve", "--help"), dict(os.environ), output.fileno())
