"""The authors' level variant over HTTP, at small sizes: from their state_dict to the answers.

``python -m tests.service.measure_levels --json`` does the same at the authors' sizes."""

from __future__ import annotations

import pytest

from tests.model_export.fuxictr.test_levels import SMALL
from tests.model_export.measure_levels import TOLERANCE, Sizes
from tests.service.level_world import CONTEXT_KINDS, HISTORY_KINDS, USER_KINDS
from tests.service.measure_levels import is_met, measured

KINDS = {
    *(f"user: {kind}" for kind in USER_KINDS),
    *(f"history: {kind}" for kind in HISTORY_KINDS),
    *(f"context: {kind}" for kind in CONTEXT_KINDS),
    *(f"item: {kind}" for kind in ("cold", "no tags", "no content", "no level")),
    "candidates without a record",
}


@pytest.mark.parametrize(
    ("sizes", "workers"),
    [
        (Sizes(**SMALL | {"users": 70_001}, E=6, P=10, C=9, A=31, layers=3, rows=2), 2),
        (Sizes(**SMALL, E=16, P=8, C=5, A=40, layers=2, rows=3), 1),
    ],
    ids=["a mapped table, two workers", "a table within the graph"],
)
def test_every_kind_of_case_is_served_as_in_float64(sizes: Sizes, workers: int) -> None:
    result = measured(sizes, requests=150, workers=(workers,))
    assert is_met(result)
    assert result["scores"] >= 500
    assert result["scores_by_kind"].keys() == KINDS
    assert min(result["scores_by_kind"].values()) >= 10
    assert result["worst_error_of_the_forward_by_loops"] <= 1e-12
    [served] = result["by_workers"].values()
    assert served["worst_error"] <= TOLERANCE
    is_mapped = sizes.user_table_bytes > 1 << 20
    assert served["processes"] == (workers if is_mapped else 0)
    assert served["table_files"] == int(is_mapped)
