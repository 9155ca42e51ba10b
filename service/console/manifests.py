"""Reads what a bundle's manifest says of its quality and size, for the list of versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from model_export.bundle.bundle import read_manifest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import Manifest, QuantisationGate
from service.artifacts.arrival import FoundBundle


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one manifest."""

    bytes: int
    parameters: int
    auc: float | None  # of training, on held-out rows
    logloss: float | None
    parity: float  # worst |Δp| to the network, over the golden answers
    tolerance: float
    cases: int
    gates: dict[str, QuantisationGate]  # by precision
    ece: tuple[float, float] | None  # calibration error before and after

    @classmethod
    def of(cls, manifest: Manifest) -> Facts:
        gates = {name: manifest.gate(name) for name in ("int8", "bf16")}
        calibration = manifest.calibration
        return cls(
            bytes=sum(file.size for file in manifest.files.values()),
            parameters=manifest.parameters,
            auc=_number(manifest.training.metrics, "auc", "valid_auc"),
            logloss=_number(manifest.training.metrics, "logloss", "valid_logloss"),
            parity=manifest.parity.max_abs_error,
            tolerance=manifest.parity.tolerance,
            cases=manifest.parity.cases,
            gates={name: gate for name, gate in gates.items() if gate is not None},
            ece=(calibration.ece_before, calibration.ece_after) if calibration else None,
        )


def _number(metrics: dict[str, Any], *names: str) -> float | None:
    """Of the metrics that a training wrote: the first number by one of these names."""
    for name in names:
        if isinstance(found := metrics.get(name), int | float):
            return float(found)
    return None


class Manifests:
    """Facts by version. A file is read again when its bundle has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Facts | None]] = {}

    def read(self, found: Iterable[FoundBundle]) -> dict[str, Facts | None]:
        """Read the manifests of bundles; None for one that cannot be read. Blocks."""
        return {one.version: self._of(one) for one in found}

    def _of(self, found: FoundBundle) -> Facts | None:
        known = self._known.get(found.version)
        if known is not None and known[0] == found.mark:
            return known[1]
        facts = None
        if found.folder is not None:
            try:
                facts = Facts.of(read_manifest(found.folder))
            except BundleError:
                facts = None
        self._known[found.version] = found.mark, facts
        return facts

    def keep_only(self, versions: Iterable[str]) -> None:
        """Drop the others."""
        kept = set(versions)
        self._known = {name: one for name, one in self._known.items() if name in kept}
