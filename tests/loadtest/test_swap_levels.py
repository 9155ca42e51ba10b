"""A small version of the measurement: plain ↔ levels on one store, under load."""

from __future__ import annotations

from pathlib import Path

from tests.loadtest.measure_swap_levels import measured, meets_bar


def test_swaps_between_plain_and_levels_lose_and_mix_nothing(tmp_path: Path) -> None:
    found = measured(tmp_path, swaps=2, duration=12, rate=20)
    assert meets_bar(found), found
