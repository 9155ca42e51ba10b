"""Chooses the precision and the processor that a version is computed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.int8_golden import check_same_int8
from model_export.bundle.manifest import QuantisationGate
from model_export.bundle.runtime import FoldedModel, Precision
from model_export.bundle.sessions import Placement, ProviderChoice, place
from service.observability.logs import logger

PrecisionChoice = Literal["fp32", "int8", "auto"]
CPU_INFO = Path("/proc/cpuinfo")
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


@dataclass(frozen=True, slots=True)
class Execution:
    """The choice that the settings ask for."""

    precision: PrecisionChoice = "fp32"
    provider: ProviderChoice = "cpu"

    def open(self, bundle: Bundle, vnni: Callable[[], bool] | None = None) -> FoldedModel:
        """Open the bundle's graphs. BundleError or ProviderError if the choice is impossible.

        ``auto`` takes int8 if its gate passed, this processor has VNNI, and results equal the
        gate's; and the GPU if a session starts there. The choice is logged with its reason.
        """
        # int8 runs on the CPU only: forced with provider=auto, it decides for the CPU.
        wanted = "cpu" if (self.precision, self.provider) == ("int8", "auto") else self.provider
        placement = place(bundle.graph("item_tower"), wanted, 1)
        if placement.fallback is not None:
            logger.warning(
                "no GPU: computing on the CPU",
                model_version=bundle.version,
                reason=placement.fallback,
            )
        precision, reason = self._precision(bundle, placement, vnni or has_vnni)
        model = FoldedModel(bundle, precision=precision, provider=placement)
        gate = bundle.manifest.quantisation
        if precision == "int8" and gate is not None:
            try:
                check_same_int8(model, bundle.golden(), gate)
            except BundleError as error:
                if self.precision == "int8":
                    raise
                model = FoldedModel(bundle, provider=placement)
                reason = str(error)
        _log(bundle, model, reason, gate)
        return model

    def _precision(
        self, bundle: Bundle, placement: Placement, vnni: Callable[[], bool]
    ) -> tuple[Precision, str]:
        if self.precision != "auto":
            return self.precision, f"QIN_PRECISION={self.precision}"
        gate = bundle.manifest.quantisation
        if gate is None:
            return "fp32", "the bundle has no int8 ranker"
        if not gate.passed:
            return "fp32", "its int8 ranker did not pass its gate"
        if placement.provider == "cuda":
            return "fp32", "int8 runs on the CPU only"
        if not vnni():
            return "fp32", "this processor has no VNNI"
        return "int8", "its gate passed, and this processor has VNNI"


def has_vnni(cpu_info: Path = CPU_INFO) -> bool:
    """Whether every processor here has int8 dot products (VNNI): fast, and without overflow."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return False
    flags = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return bool(flags) and all(VNNI & one for one in flags)


def _log(bundle: Bundle, model: FoldedModel, reason: str, gate: QuantisationGate | None) -> None:
    fields: dict[str, object] = {
        "model_version": bundle.version,
        "precision": model.precision,
        "provider": model.placement.provider,
        "reason": reason,
    }
    if model.precision == "int8" and gate is not None and not gate.passed:
        logger.warning(
            "int8 was forced past its gate",
            **fields,
            delta_auc=gate.delta_auc,
            mean_abs_delta_p=gate.mean_abs_delta_p,
        )
    else:
        logger.info("precision", **fields)
