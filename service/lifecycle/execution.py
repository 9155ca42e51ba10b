"""Opens a version in the precision, and on the processor, that the settings ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.graphs import Precision
from model_export.bundle.manifest import QuantisationGate
from model_export.bundle.modes import Choice
from model_export.bundle.reduced_golden import check_same_arithmetic
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.sessions import Placement, ProviderChoice, place
from service.observability.logs import logger
from service.settings import Settings

PrecisionChoice = Literal["fp32", "int8", "bf16", "auto"]
RUNS_ON: dict[str, ProviderChoice] = {"int8": "cpu", "bf16": "openvino"}  # with provider=auto


@dataclass(frozen=True, slots=True)
class Execution:
    """The choice that the settings ask for."""

    precision: PrecisionChoice = "fp32"
    provider: ProviderChoice = "cpu"
    threads: int = 1  # that score at once

    @classmethod
    def of(cls, settings: Settings) -> Execution:
        return cls(settings.precision, settings.provider, settings.engine_threads)

    @property
    def wanted(self) -> ProviderChoice:
        """``provider``; with auto, int8 and bf16 decide for where they run."""
        return RUNS_ON.get(self.precision, "auto") if self.provider == "auto" else self.provider

    def open(self, bundle: Bundle, choice: Choice | None = None) -> FoldedModel:
        """Open the bundle's graphs. BundleError or ProviderError if that is impossible.

        ``choice``: the mode measured for this bundle and machine, which ``auto`` takes unless a
        session starts on a GPU. What is served is logged with its reason.
        """
        placement = place(bundle.graph("item_tower"), self.wanted, 1)
        if placement.fallback is not None:
            logger.warning(
                "no GPU: computing on the CPU",
                model_version=bundle.version,
                reason=placement.fallback,
            )
        precision, top_k, chosen = self._mode(bundle, placement, choice)
        model = self._open(bundle, precision, top_k, chosen)
        gate = bundle.manifest.gate(model.reduced)
        if gate is not None:
            try:
                check_same_arithmetic(model, bundle.golden(), gate)
            except BundleError as error:
                if self.precision == precision:
                    raise
                placement = replace(placement, reason=str(error))
                model = self._open(bundle, "fp32", "fp32", placement)
        _log(bundle, model, gate, choice)
        return model

    def _open(
        self, bundle: Bundle, precision: Precision, top_k: Precision, placement: Placement
    ) -> FoldedModel:
        return FoldedModel(
            bundle, precision=precision, top_k=top_k, provider=placement, callers=self.threads
        )

    def _mode(
        self, bundle: Bundle, placement: Placement, choice: Choice | None
    ) -> tuple[Precision, Precision, Placement]:
        """The precision of scores, that of shortlists, and where, with the reason."""
        if self.precision == "bf16" and bundle.manifest.bf16 is None:
            raise BundleError(
                f"{bundle.path}: was not judged in bf16; build it with "
                "`python -m model_export build --bf16`, or serve it with precision=fp32"
            )
        if self.precision != "auto":
            reason = f"QIN_PRECISION={self.precision}"
            return self.precision, self.precision, replace(placement, reason=reason)
        if placement.provider == "cuda":
            reason = "int8 and bf16 run on the CPU only"
            return "fp32", "fp32", replace(placement, reason=reason)
        if choice is None:
            return "fp32", "fp32", replace(placement, reason="no mode was measured")
        chosen = replace(placement, provider=choice.provider, reason=choice.reason)
        return choice.precision, choice.top_k, chosen


def _log(
    bundle: Bundle,
    model: FoldedModel,
    gate: QuantisationGate | None,
    choice: Choice | None,
) -> None:
    fields: dict[str, object] = {
        "model_version": bundle.version,
        "precision": model.precision,
        "provider": model.placement.provider,
        "top_k": model.top_k,
        "reason": model.placement.reason,
    }
    if choice is not None:
        fields |= {"us_per_candidate": choice.us_per_candidate, "passed_over": choice.passed_over}
    if model.precision != "fp32" and gate is not None and not gate.passed:
        logger.warning(
            f"{model.precision} was forced past its gate",
            **fields,
            delta_auc=gate.delta_auc,
            mean_abs_delta_p=gate.mean_abs_delta_p,
        )
    else:
        logger.info("precision", **fields)
