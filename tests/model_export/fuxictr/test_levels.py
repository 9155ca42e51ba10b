"""The level variant from the authors' state_dict to the runtime, at small sizes.

``python -m tests.model_export.measure_levels --json`` does the same at the authors'."""

from __future__ import annotations

import pytest

from tests.model_export.measure_levels import TOLERANCE, Sizes, measured

SMALL = {"users": 300, "items": 200, "tags": 50, "slots": 3, "history": 7}
OF_ANY_SIZES = {
    "content wider than the embeddings": Sizes(**SMALL, E=6, P=10, C=9, A=31, layers=3, rows=2),
    "content narrower": Sizes(**SMALL, E=9, P=4, C=5, A=16, layers=1, rows=1),
    "six layers": Sizes(**SMALL, E=4, P=4, C=4, A=7, layers=6, rows=4),
    "odd vocabularies": Sizes(
        users=2, items=401, tags=3, levels=2, slots=1, history=1, E=5, P=3, C=1, A=3, layers=2
    ),
    "a table that is mapped": Sizes(
        **SMALL | {"users": 70_001}, E=4, P=4, C=6, A=13, layers=5, rows=3
    ),
}


@pytest.mark.parametrize("sizes", OF_ANY_SIZES.values(), ids=OF_ANY_SIZES.keys())
def test_a_level_variant_of_any_sizes_answers_as_in_float64(sizes: Sizes) -> None:
    result = measured(sizes, cases=300)
    assert result["cases"] >= 300
    assert result["cases_of_unknown_users"] >= 80
    assert result["worst_error"] <= TOLERANCE
    assert result["worst_error_by_loops"] <= TOLERANCE
    assert result["mapped"] == (["user_id"] if result["user_table_bytes"] > 1 << 20 else [])
