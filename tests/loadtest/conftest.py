"""Stubs to load, and settings for property tests on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtest.experiments.stub_process import StubProcess


@pytest.fixture
def quick_stub() -> Iterator[StubProcess]:
    """Answers after 5 ms, nobody waits for anybody."""
    with StubProcess(service="constant:5ms", servers=0) as stub:
        yield stub
