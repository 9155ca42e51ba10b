"""Parts, buckets and buffers are as large as the memory of a process allows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from batch.cli.score import size_of
from batch.errors import BatchError
from batch.job import Columns
from batch.sizes import LEAST_MEMORY, MEMORY, Edges, Sizes

ROWS = Columns("rows", "user_id", "item_id")
LISTS = Columns("lists", "user_id", "item_ids", context=("level",), features=("hour",))


@given(st.lists(st.lists(st.integers(1, 30), max_size=12), max_size=6), st.integers(1, 40))
def test_parts_are_as_full_as_they_may_be(batches: list[list[int]], most: int) -> None:
    edges = Edges(most)
    for batch in batches:
        edges.add(np.array(batch, np.int64))
    found = edges.finish()
    weights = [weight for batch in batches for weight in batch]
    assert found[0] == 0
    assert found[-1] == len(weights)
    assert list(found) == sorted(set(found))
    for start, end in pairwise(found):
        whole = sum(weights[start:end])
        assert whole <= most or end == start + 1
        assert end == len(weights) or whole + weights[end] > most


@pytest.mark.parametrize("columns", [ROWS, LISTS])
def test_a_part_fits_in_the_memory(columns: Columns) -> None:
    usual = Sizes.of(MEMORY, columns, None, 100_000)
    small = Sizes.of(LEAST_MEMORY, columns, None, 1000)
    assert small.part_bytes <= LEAST_MEMORY < usual.part_bytes <= MEMORY
    assert small.buckets(10**6) > usual.buckets(10**6) > 10**6 / usual.part_candidates
    assert small.held_bytes < LEAST_MEMORY
    assert small.bucket_clicks < usual.bucket_clicks


@pytest.mark.parametrize(
    ("memory", "part", "longest", "said"),
    [
        (LEAST_MEMORY - 1, None, 10, "at least 16000000 bytes"),
        (LEAST_MEMORY, None, 100_000, "lists of --max-candidates 100000 need 102400000 bytes"),
        (LEAST_MEMORY, 62_501, 10, "--part-candidates 62501: needs 16000256 bytes"),
    ],
)
def test_what_does_not_fit_is_refused(
    memory: int, part: int | None, longest: int, said: str
) -> None:
    with pytest.raises(BatchError, match=said):
        Sizes.of(memory, ROWS, part, longest)


def test_sizes_are_read_with_their_units() -> None:
    wanted = {"300": 300, "256MB": 256 * 10**6, "1.5G": 1_500_000_000, "16 MiB": 2**24, "2kB": 2000}
    assert {text: size_of(text) for text in wanted} == wanted
    for text in ("", "-5", "1e30", "9" * 400, "9007199254740994"):
        with pytest.raises(typer.BadParameter):
            size_of(text)
