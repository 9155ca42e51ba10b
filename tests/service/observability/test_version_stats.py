"""What is kept of a version's answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.observability.version_stats import VersionStats, shape_of


@given(st.lists(st.floats(0, 100, width=32), max_size=40), st.integers(0, 40))
def test_a_tally_keeps_the_latest_answers_since_its_mark(seconds: list[float], mark: int) -> None:
    stats = VersionStats()
    for place, one in enumerate(seconds):
        if place == mark:
            stats.mark()
        stats.took(place + 1, 0, one)
    kept = seconds[mark:] if mark < len(seconds) else seconds
    kinds, found = stats.latest()
    assert sorted(found.tolist()) == sorted(kept)
    assert len(kinds) == len(kept)


@given(st.integers(1, 10_000), st.integers(0, 2048))
def test_a_kind_of_request_is_told_apart_by_powers_of_two(candidates: int, history: int) -> None:
    stats = VersionStats()
    stats.took(candidates, history, 1.0)
    for asked, middle in zip((candidates, history), shape_of(stats.latest()[0][0]), strict=True):
        assert middle.bit_length() == asked.bit_length()
