"""What loads of several batches are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.samples import SHOP, random_rows

MANY = 4000


@pytest.fixture
def arguments(tmp_path: Path) -> list[Any]:
    (tmp_path / "schema.yaml").write_text(SHOP.to_yaml())
    columns = item_columns(SHOP, np.arange(1, MANY + 1), random_rows(SHOP, MANY))
    histories = {"user_id": list(range(MANY)), "item_seq": [[1, 2, 3]] * MANY}
    return [
        *("--schema", tmp_path / "schema.yaml", "--rejects", tmp_path / "rejects"),
        *("--items", write(tmp_path / "items.parquet", columns)),
        *("--histories", write(tmp_path / "valid.parquet", histories)),
    ]
