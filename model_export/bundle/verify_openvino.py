"""Verifies that a bundle answers on OpenVINO, too, as its PyTorch network did."""

from __future__ import annotations

from pathlib import Path

from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.golden import Difference
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.verify import check_golden, check_runs
from model_export.bundle.verify import verify as verify_on_cpu


def verify(path: Path | str) -> tuple[Bundle, Difference]:
    """Verify as ``verify.verify`` does, then on OpenVINO in float32 and, if bundle and processor
    have it, in bfloat16. Raises BundleError, and ProviderError without the plugin."""
    bundle, difference = verify_on_cpu(path)
    check_golden(bundle, FoldedModel(bundle, provider="openvino"))
    if bundle.manifest.bf16 and openvino.has_bf16():
        check_runs(bundle, FoldedModel(bundle, provider="openvino", precision="bf16"))
    return bundle, difference
