"""Ports given to servers of tests: no two alike while their servers start."""

from __future__ import annotations

import pytest

from tests import ports
from tests.ports import free_port


@pytest.mark.parametrize("worker", ["gw0", "gw3", ""])
def test_no_port_is_given_twice(worker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setattr(ports, "_given", set())
    monkeypatch.setattr(ports, "LAST", ports.FIRST + 800)
    given = [free_port() for _ in range(40)]
    assert len(set(given)) == 40


def test_workers_of_the_tests_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[set[int]]()
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        found.append({(free_port() - ports.FIRST) % ports.WORKERS for _ in range(20)})
    assert found == [{0}, {1}]
