"""Finds the exact k best of a list at nearly the cost of int8 or bf16.

All candidates are scored in the reduced precision; those that its error bound cannot rule out of
the k best are scored again in float32. If the error of one of them exceeds the bound, the bound
does not hold for this list, and all of it is scored in float32.
"""

from __future__ import annotations

import numpy as np

from model_export.bundle.shortlist import out_of_bound, shortlist
from model_export.bundle.vectors import Positions
from service.observability.metrics import Metrics
from service.scoring.ranking import Ranking, ScoringRun


async def rank_best(ranking: Ranking, k: int, run: ScoringRun, metrics: Metrics) -> None:
    """Score in float32 what may be among the k best; the others keep NaN for a score."""
    known, bound = ranking.known, ranking.model.logit_bound
    if 2 * k > len(known) or not ranking.model.has_shortlists:  # see ``shortlist``
        await run.rank_exactly(ranking)
        return
    await run.run(ranking.score_reduced, len(known))
    short = shortlist(ranking.logits[0, known], k, bound)
    chosen: Positions = known[short]
    metrics.rescored.inc(len(chosen))
    await run.rescore(ranking, chosen)
    quick, exact = ranking.logits[:, chosen]
    if len(chosen) < len(known) and out_of_bound(quick, exact, bound):
        metrics.top_k_bound.inc()
        await run.rank_exactly(ranking)
        return
    ranking.scored = np.zeros(len(known), np.bool_)
    ranking.scored[short] = True
