"""Tables of pyarrow, polars and DuckDB in many types: equal values, or a named refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("polars")
pytest.importorskip("duckdb")

from tests.feature_store.parquet.other_tables import ROUND, compare, content_of


@pytest.mark.parametrize("first", range(0, 20 * ROUND, ROUND), ids=content_of)
def test_tables_of_other_writers_are_read_equal_or_refused_by_name(
    tmp_path: Path, first: int
) -> None:
    results = [compare(seed, tmp_path) for seed in range(first, first + ROUND)]
    assert [result.what for result in results if result.outcome == "wrong"] == []
    assert any(result.outcome == "equal" for result in results)
