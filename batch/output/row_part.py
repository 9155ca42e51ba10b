"""The part of an input of rows: the same rows in the same order, each with its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.job import Recipe
from batch.output.parts import (
    PartNote,
    as_runs,
    code_array,
    concatenated,
    counts_of,
    encoded,
    score_array,
    version_array,
)
from batch.scoring.scores import ITEM_STATUS, REJECTED, REJECTED_USER, USER_STATUS


def row_part(
    recipe: Recipe,
    span: tuple[int, int],
    batches: Sequence[Mapping[str, pa.Array]],
    found: Sequence[NDArray[np.void]],
    faults: Sequence[tuple[int, str]],
) -> tuple[bytes, dict[str, int]]:
    """Return a part's bytes and counts. With top-k the rows among their user's k best alone.

    ``found``: records of ``bucket_scores`` within the span; a row without one was rejected.
    """
    start, end = span
    count = end - start
    scores = np.full(count, np.nan, np.float32)
    items, users = np.full(count, REJECTED, np.uint8), np.full(count, REJECTED_USER, np.uint8)
    rank = np.zeros(count, np.int32)
    for records in found:
        at = records["row"] - start
        scores[at], items[at], users[at] = records["score"], records["item"], records["user"]
        rank[at] = records["rank"]
    passed = {n: concatenated([b[n] for b in batches]) for n in recipe.columns.passed}
    counts = counts_of(items, users)
    out = {
        **passed,
        "score": score_array(scores),
        "model_version": version_array(recipe.version, count),
        "item_status": code_array(items, ITEM_STATUS),
        "user_status": code_array(users, USER_STATUS),
    }
    if recipe.top_k is not None:
        out["rank"] = pa.array(rank)
        chosen = pa.array(np.flatnonzero(rank))
        out = {name: array.take(chosen) for name, array in out.items()}
    return encoded(out, PartNote(recipe.digest, start, end, counts, as_runs(faults))), counts
