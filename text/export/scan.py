"""Writes the body of an ONNX ``Scan``, which uses constants and values of the graph around it."""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from model_export.graphs.onnx_writer import GraphWriter


class ScanBody(GraphWriter):
    """Collects the nodes of one step; constants become those of the graph around."""

    def __init__(self, name: str, around: GraphWriter) -> None:
        super().__init__(name, "")
        self._around = around

    def constant(self, name: str, value: NDArray[Any] | float) -> str:
        return self._around.constant(name, value)

    def graph(self) -> onnx.GraphProto:
        """Return the step as the value of a node's attribute ``body``."""
        return helper.make_graph(self._nodes, self.name, self._inputs, self._outputs)
