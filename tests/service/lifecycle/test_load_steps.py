"""The shapes that a new version is warmed up with."""

from __future__ import annotations

from service.lifecycle.load_steps import RecentShapes


def test_shapes_are_a_few_of_those_seen_from_smallest_to_largest() -> None:
    shapes = RecentShapes()
    assert (512, 64) in shapes.typical(64, 512)
    for candidates in range(1, 500):
        shapes.note(candidates, candidates % 65)
    typical = shapes.typical(64, 512)
    assert len(typical) == 12
    assert typical[0] == (1, 1)
    assert typical[-1] == (499, 499 % 65)


def test_a_long_list_counts_as_chunks_and_a_history_as_the_versions_longest() -> None:
    shapes = RecentShapes()
    for candidates in (7, 5000, 600):
        shapes.note(candidates, 64)
    assert shapes.typical(32, 128) == [(7, 32), (128, 32)]
