"""The part of an input of lists: a row per list, with lists of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from batch.inputs.requests import Requests
from batch.job import Recipe
from batch.output.parts import (
    PartNote,
    as_runs,
    code_array,
    concatenated,
    counts_of,
    encoded,
    list_array,
    score_array,
    version_array,
)
from batch.scoring.scores import ITEM_STATUS, USER_STATUS, Scores
from feature_store.parquet.arrays import flattened
from model_export.bundle.top_k import best
from model_export.bundle.vectors import Positions


def list_part(
    recipe: Recipe,
    span: tuple[int, int],
    batches: Sequence[Mapping[str, pa.Array]],
    requests: Requests,
    scores: Scores,
) -> tuple[bytes, dict[str, int]]:
    """Return a part's bytes and counts. With top-k a list has its best alone, best first."""
    columns = recipe.columns
    passed = {name: concatenated([b[name] for b in batches]) for name in columns.passed}
    starts, chosen = requests.starts, None
    if recipe.top_k is not None:
        chosen, starts = _best(starts, scores, recipe.top_k)
        elements, _ = flattened(passed[columns.item])
        passed[columns.item] = list_array(elements.take(pa.array(chosen)), starts)
    given, items = scores.scores, scores.items
    if chosen is not None:
        given, items = given[chosen], items[chosen]
    count = len(requests)
    faults = [(span[0] + g, why) for g, why in sorted(scores.faults.items())]
    counts = counts_of(scores.items, scores.users)
    note = PartNote(recipe.digest, *span, counts, as_runs(faults))
    out = {
        **passed,
        "scores": list_array(score_array(given), starts),
        "model_version": version_array(recipe.version, count),
        "item_status": list_array(code_array(items, ITEM_STATUS), starts),
        "user_status": code_array(scores.users, USER_STATUS),
    }
    return encoded(out, note), counts


def _best(starts: Positions, scores: Scores, k: int) -> tuple[Positions, Positions]:
    """Positions of every list's k best, and where each list's begin."""
    found = [np.zeros(0, np.int64)]
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        chosen = best(scores.scores[start:end], k)
        found.append(start + chosen)
    lengths = [len(each) for each in found[1:]]
    return np.concatenate(found), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
