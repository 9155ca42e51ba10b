"""Chooses the precision and the processor that a version is computed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import QuantisationGate
from model_export.bundle.reduced_golden import check_same_arithmetic
from model_export.bundle.runtime import FoldedModel, Precision
from model_export.bundle.sessions import Placement, ProviderChoice, place
from service.observability.logs import logger
from service.settings import Settings

PrecisionChoice = Literal["fp32", "int8", "bf16", "auto"]
RUNS_ON: dict[str, ProviderChoice] = {"int8": "cpu", "bf16": "openvino"}  # with provider=auto
ABSENT = {"int8": "the bundle has no int8 ranker", "bf16": "the bundle was built without --bf16"}
CPU_INFO = Path("/proc/cpuinfo")
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


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

    def open(self, bundle: Bundle, vnni: Callable[[], bool] | None = None) -> FoldedModel:
        """Open the bundle's graphs. BundleError or ProviderError if the choice is impossible.

        ``auto`` takes int8, or bf16 on OpenVINO, if its gate passed, this processor has the
        arithmetic, and results equal the gate's; and the GPU if a session starts there. The choice
        is logged with its reason.
        """
        placement = place(bundle.graph("item_tower"), self.wanted, 1)
        if placement.fallback is not None:
            logger.warning(
                "no GPU: computing on the CPU",
                model_version=bundle.version,
                reason=placement.fallback,
            )
        precision, reason = self._precision(bundle, placement, vnni or has_vnni)
        model = self._open(bundle, precision, placement)
        gate = bundle.manifest.gate(precision)
        if gate is not None:
            try:
                check_same_arithmetic(model, bundle.golden(), gate)
            except BundleError as error:
                if self.precision == precision:
                    raise
                model = self._open(bundle, "fp32", placement)
                reason = str(error)
        _log(bundle, model, reason, gate)
        return model

    def _open(self, bundle: Bundle, precision: Precision, placement: Placement) -> FoldedModel:
        return FoldedModel(bundle, precision=precision, provider=placement, callers=self.threads)

    def _precision(
        self, bundle: Bundle, placement: Placement, vnni: Callable[[], bool]
    ) -> tuple[Precision, str]:
        if self.precision != "auto":
            if self.precision == "bf16" and bundle.manifest.bf16 is None:
                raise BundleError(
                    f"{bundle.path}: was not judged in bf16; build it with "
                    "`python -m model_export build --bf16`, or serve it with precision=fp32"
                )
            return self.precision, f"QIN_PRECISION={self.precision}"
        low: Precision = "bf16" if placement.provider == "openvino" else "int8"
        gate = bundle.manifest.gate(low)
        if gate is None:
            return "fp32", ABSENT[low]
        if not gate.passed:
            return "fp32", f"its {low} ranker did not pass its gate"
        if placement.provider == "cuda":
            return "fp32", "int8 runs on the CPU only"
        has, name = (openvino.has_bf16, "bfloat16") if low == "bf16" else (vnni, "VNNI")
        if not has():
            return "fp32", f"this processor has no {name}"
        return low, f"its gate passed, and this processor has {name}"


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
    if model.precision != "fp32" and gate is not None and not gate.passed:
        logger.warning(
            f"{model.precision} was forced past its gate",
            **fields,
            delta_auc=gate.delta_auc,
            mean_abs_delta_p=gate.mean_abs_delta_p,
        )
    else:
        logger.info("precision", **fields)
