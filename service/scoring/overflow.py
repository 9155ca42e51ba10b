"""Finds the items of a request that make its scores overflow.

An item that overflows with typical ones is rejected when it is derived (``FoldedModel.scorable``).
This is about pairs of large items: the larger one becomes unreadable, and the other candidates are
scored without it.

Shapes: H history items, of which L are known; C candidates; B of them without a number for a score.
"""

from __future__ import annotations

import numpy as np

from model_export.bundle.extremes import magnitude
from model_export.bundle.vectors import Floats, HistoryRows, Positions
from service.errors import ModelFault
from service.scoring.ranking import Ranking, ScoringRun

TRIED = 64  # candidates that a shorter history is tried with
FAULT = "the model answered with a score that is not a number"


async def culprits(ranking: Ranking, history: int, run: ScoringRun) -> Positions:
    """Positions among the request's items (H + C) of those to leave out.

    None when float32, in which everything is scored here, knows a score for every candidate. A
    score that is not a number although no item is large is a ModelFault.
    """
    model, before = ranking.model, ranking.overflown
    ranking.scored = None
    await run.begin(ranking.read_history).rank_exactly(ranking)
    bad = ranking.overflown  # (B,)
    if not len(bad):
        if model.reduced == "fp32" and len(before):
            raise ModelFault(FAULT)  # the same input gave two different results
        return bad
    alone = await _beside(ranking, np.empty(0, np.int64), bad, run)
    size = magnitude(ranking.vectors(bad))
    if (size[np.isnan(alone)] <= model.extremes.tried_beyond).any():
        raise ModelFault(FAULT)
    order = np.argsort(-magnitude(ranking.past_vectors()), kind="stable")  # (L,) largest first
    largest = magnitude(ranking.past_vectors()).max(initial=0)
    blamed = np.isnan(alone) | (size > largest)
    out: list[Positions] = [bad[blamed] + history]
    if not blamed.all():
        tried = bad[~blamed][:TRIED]
        out.append(ranking.past[order[: await _too_many(ranking, order, tried, run)]])
    return np.concatenate(out)


async def _too_many(ranking: Ranking, order: Positions, tried: Positions, run: ScoringRun) -> int:
    """Bisect how much of the history, in this order, to leave out so that these have scores."""
    fails, works = 0, len(order)  # none gone; all gone
    gone = 1  # mostly it is one
    while works - fails > 1:
        scores = await _beside(ranking, np.sort(order[gone:]), tried, run)
        if np.isnan(scores).any():
            fails = gone
        else:
            works = gone
        gone = (fails + works) // 2
    return works


async def _beside(ranking: Ranking, kept: Positions, chosen: Positions, run: ScoringRun) -> Floats:
    """Score these candidates in float32 with a part of the history: places in ``past``."""
    vectors, scores = ranking.past_vectors()[kept], np.empty(len(chosen), np.float32)
    rows: list[HistoryRows] = []

    def read() -> None:
        rows.append(ranking.model.history(vectors))

    def rank(start: int, end: int) -> None:
        scores[start:end] = ranking.exactly(chosen[start:end], rows[0])

    await run.begin(read).run(rank, len(chosen))
    return scores
