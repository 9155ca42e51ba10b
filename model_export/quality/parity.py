"""Decides whether folded graphs may be published: their algebra, then their rounding.

The algebra is judged in float64, where a defect cannot pass for rounding; the written graphs are
judged by the rounding that float32 has on this network (docs/model-export.md).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_export.bundle.errors import ParityError
from model_export.bundle.golden import Golden, Ranks
from model_export.bundle.manifest import TOLERANCE, Parity
from model_export.graphs.folded_network import FoldedNetwork
from model_export.quality.golden_cases import informative
from model_export.quality.reference import exact_answers, rounding

FOLD_TOLERANCE = 1e-10  # of a probability, in float64
MULTIPLE = 4  # of the rounding estimate
MOST_ROUNDING = 1e-3  # of a probability; beyond it rounding must be accepted


def check_folds(folded: FoldedNetwork, golden: Golden, version: str) -> float:
    """Return the worst |Δp| of the folded constants, in float64. ParityError beyond 1e-10."""
    bound = np.full(len(golden.probability), FOLD_TOLERANCE)
    found = replace(golden, bound=bound).difference(exact_answers(folded, golden))
    if not found.error <= FOLD_TOLERANCE:
        raise ParityError(
            f"version {version} is not published: the folded weights, evaluated in float64, "
            f"answer differently: one differs from the PyTorch network's by {found.error:.3g} (at "
            f"most {FOLD_TOLERANCE:g} is allowed); worst case: {found.worst_case}. Causes: a "
            "defect in a fold, or weights that are not finite; see the checkpoint's metrics first"
        )
    return found.max_abs_error


def bounded(folded: FoldedNetwork, golden: Golden) -> Golden:
    """Set each answer's bound: 1e-5, or 4 × the estimated rounding, at most 1e-3."""
    estimate = rounding(folded, golden, golden.probability.astype(np.float64))
    usable = np.where(np.isfinite(estimate), estimate, 0)
    return replace(golden, bound=np.clip(MULTIPLE * usable, TOLERANCE, MOST_ROUNDING))


def check_rounding(
    model: Ranks, golden: Golden, version: str, *, fold_error: float, accept: bool
) -> tuple[Golden, Parity]:
    """Run the written graphs on every golden request.

    Returns the golden answers with the bounds to record. Raises ParityError beyond the bounds,
    unless ``accept``: then the bounds become twice the worst error.
    """
    found = golden.compare(model)
    accepted = not found.error <= found.bound
    if accepted and not (accept and np.isfinite(found.max_abs_error)):
        raise ParityError(
            f"version {version} is not published: a folded answer in float32 differs from the "
            f"PyTorch network's by {found.error:.3g} (at most {found.bound:.3g} is allowed: what "
            f"float32 rounding explains on this network); worst case: {found.worst_case}. Causes: "
            "weights of extreme size, or a defect in a graph; publish it with --accept-rounding "
            "to accept that"
        )
    if accepted:
        golden = replace(golden, bound=np.maximum(golden.bound, 2 * found.max_abs_error))
    return golden, Parity(
        tolerance=float(golden.bound.max()),
        max_abs_error=found.max_abs_error,
        worst_case=found.worst_case,
        cases=found.cases,
        informative=informative(golden),
        fold_error=fold_error,
        rounding_accepted=accepted,
    )
