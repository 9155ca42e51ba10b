"""How far int8 is from float32 on this machine, on the golden questions.

Integer products differ between processors (without VNNI they may saturate), so what the gate
measured where the bundle was built need not hold where it is served.
"""

from __future__ import annotations

import numpy as np

from model_export.bundle.errors import BundleError
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import QuantisationGate
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.top_k import MARGIN

ROUNDING = 1e-5  # on the logit: float32 differs by so much between processors anyway


def golden_logit_error(model: FoldedModel, golden: Golden) -> float:
    """Worst |Δlogit|, int8 against float32. A NaN is infinitely far."""
    worst, vectors = 0.0, model.items(golden.items)
    for request in golden.requests():
        history = model.history(vectors.vector[request.history])
        asked = model.in_context(vectors.take(request.candidates), request.context)
        apart = model.logits(asked, history, "int8") - model.logits(asked, history, "fp32")
        worst = max(worst, float(np.nan_to_num(np.abs(apart), nan=np.inf).max()))
    return worst


def check_same_int8(model: FoldedModel, golden: Golden, gate: QuantisationGate) -> float:
    """The error here. BundleError when it is not what it was where the bundle was built."""
    here = golden_logit_error(model, golden)
    if not here <= MARGIN * gate.golden_logit_error + ROUNDING:
        raise BundleError(
            f"version {model.version}: int8 is off by {here:.3g} on the golden questions here, "
            f"and was by {gate.golden_logit_error:.3g} where its gate was measured: this "
            "processor computes it otherwise; serve it with precision=fp32, or build it here"
        )
    return here
