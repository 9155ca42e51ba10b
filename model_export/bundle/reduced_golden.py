"""Measures the error of int8 or bf16 against float32 on this machine, on the golden requests.

Integer products differ between processors (without VNNI they may saturate), and bfloat16 between
processors and releases of OpenVINO, so the gate's result on the building machine need not hold on
the serving one.
"""

from __future__ import annotations

import numpy as np

from model_export.bundle.errors import BundleError
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import QuantisationGate
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.shortlist import MARGIN

ROUNDING = 1e-5  # of the logit: the difference of float32 between processors


def golden_logit_error(model: FoldedModel, golden: Golden) -> float:
    """Worst |Δlogit|, the model's int8 or bf16 against float32. NaN counts as infinite."""
    worst, vectors = 0.0, model.items(golden.items)
    for request in golden.requests():
        history = model.history(vectors.vector[request.history])
        asked = model.in_context(vectors.take(request.candidates), request.context)
        user = model.user(request.user, request.features)
        quick = model.logits(asked, history, model.reduced, user)
        apart = quick - model.logits(asked, history, "fp32", user)
        worst = max(worst, float(np.nan_to_num(np.abs(apart), nan=np.inf).max()))
    return worst


def check_same_arithmetic(model: FoldedModel, golden: Golden, gate: QuantisationGate) -> float:
    """Return the error here. Raises BundleError if it exceeds that of the building machine."""
    here = golden_logit_error(model, golden)
    if not here <= MARGIN * gate.golden_logit_error + ROUNDING:
        raise BundleError(
            f"version {model.version}: {model.reduced} differs from float32 by {here:.3g} on the "
            f"golden requests, and by {gate.golden_logit_error:.3g} where the bundle was built: "
            "this processor computes it differently; serve it with precision=fp32, or build it here"
        )
    return here
