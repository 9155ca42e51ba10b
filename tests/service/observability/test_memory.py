"""The memory of this process and machine."""

from __future__ import annotations

from service.observability import memory


def test_the_memory_there_is_is_read() -> None:
    free = memory.available_bytes()
    assert 0 < free < 2**50
