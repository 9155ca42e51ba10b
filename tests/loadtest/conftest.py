"""Stubs to load, and settings for property tests on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtest.experiments.stub_process import StubProcess


@pytest.fixture(scope="module")
def quick_stub() -> Iterator[StubProcess]:
    """Answers after 5 ms; no request waits for another. A module's tests share it."""
    with StubProcess(service="constant:5ms", servers=0) as stub:
        yield stub
