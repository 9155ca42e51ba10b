"""Random tables of items and histories, of integer and text ids, by all writers."""

from __future__ import annotations

from pathlib import Path

from tests.feature_store.parquet import other_histories, other_items
from tests.feature_store.parquet.other_writers import LAYOUTS, WRITERS, Result

ROUND = len(WRITERS) * len(LAYOUTS)  # seeds of one kind of table
CONTENTS = ("items", "items, mapped", "histories", "histories, mapped")


def content_of(seed: int) -> str:
    return CONTENTS[seed // ROUND % len(CONTENTS)]


def compare(seed: int, folder: Path) -> Result:
    """Write the table of ``seed`` into ``folder`` and read it back."""
    content, _, kind = content_of(seed).partition(", ")
    of_content = other_items.compare if content == "items" else other_histories.compare
    return of_content(seed, folder, mapped=kind == "mapped")
