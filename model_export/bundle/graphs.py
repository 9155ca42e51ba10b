"""The graphs of a bundle, published or being written, and which of them runs where."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from feature_store.schema import FeatureSchema
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import INT8, ROWS

Precision = Literal["fp32", "int8", "bf16"]


class Graphs(Protocol):
    """A bundle, or a folder of graphs being written."""

    @property
    def path(self) -> Path: ...
    @property
    def version(self) -> str: ...
    @property
    def schema(self) -> FeatureSchema: ...
    def graph(self, name: str) -> Path: ...


def for_openvino(bundle: Graphs) -> Path:
    """Return the ranker that is faster on OpenVINO; bundles of earlier releases have one form."""
    listed = not isinstance(bundle, Bundle) or f"{ROWS}.onnx" in bundle.manifest.files
    rows = bundle.graph(ROWS)
    return rows if listed and rows.exists() else bundle.graph("ranker")


def with_int8(bundle: Graphs) -> Path:
    """Return the ranker with int8 products. BundleError if there is none."""
    if not bundle.graph(INT8).exists():
        raise BundleError(
            f"{bundle.path}: has no {INT8}.onnx; build it with "
            "`python -m model_export build --int8`, or serve it with precision=fp32"
        )
    return bundle.graph(INT8)
