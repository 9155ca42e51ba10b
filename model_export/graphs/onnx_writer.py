"""Writes an ONNX graph with its weights as external data, page-aligned for memory mapping.

The weights bypass protobuf and its limit of 2 GiB: an item table may be larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model_export.graphs.blocks import DOMAIN, OPSETS, Block

IR_VERSION = 10
PAGE = 4096
INLINE_BYTES = 256  # constants up to this size (shapes, scalars) stay in the graph

_KINDS = {
    "float32": TensorProto.FLOAT,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


class GraphWriter:
    """Collects nodes, constants, inputs and outputs, and saves them as a model."""

    def __init__(self, name: str, doc: str, beside: GraphWriter | None = None) -> None:
        """``beside``: a graph of the same folder, whose weights are not written again: those of
        the same name and bytes, in any shape."""
        self.name, self.doc, self._beside = name, doc, beside
        self._nodes: list[onnx.NodeProto] = []
        self._blocks: dict[str, Block] = {}
        self._constants: dict[str, NDArray[Any]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: str, shape: list[str | int]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, _KINDS[kind], shape))
        return name

    def output(self, name: str, kind: str, shape: list[str | int]) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, _KINDS[kind], shape))

    def constant(self, name: str, value: NDArray[Any] | float) -> str:
        """Add a named weight. Floats are rounded to float32 here, once."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        assert name not in self._constants, name
        self._constants[name] = np.ascontiguousarray(array)
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        return self.nodes(operator, inputs, [output], **attributes)[0]

    def nodes(
        self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs."""
        name = f"{outputs[0]}/{operator}"
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs

    def call(
        self, block: Block, inputs: list[str], outputs: list[str], **attributes: Any
    ) -> list[str]:
        """Add a call of the function ``block``, whose body is written once."""
        self._blocks[block.name] = block
        self._nodes.append(
            helper.make_node(
                block.name,
                inputs,
                outputs,
                name=f"{outputs[0]}/{block.name}",
                domain=DOMAIN,
                **attributes,
            )
        )
        return outputs

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """The weights by name, as they are stored."""
        return self._constants

    @property
    def weights_file(self) -> str:
        return f"{self.name}.weights"

    @property
    def weight_bytes(self) -> int:
        """Total size of the constants."""
        return sum(array.nbytes for array in self._constants.values())

    def _places(self) -> dict[str, tuple[str, int]]:
        """File and offset of each large constant."""
        places, offset = dict[str, tuple[str, int]](), 0
        shared = {} if self._beside is None else self._beside._places()
        for name, array in self._constants.items():
            if array.nbytes <= INLINE_BYTES:
                continue
            if name in shared and self._beside is not None:
                other = self._beside.constants[name]
                if other.dtype == array.dtype and other.tobytes() == array.tobytes():
                    places[name] = shared[name]
                    continue
            places[name] = self.weights_file, offset
            offset += -(-array.nbytes // PAGE) * PAGE
        return places

    def model(self) -> onnx.ModelProto:
        """Build the model; large constants refer to ``weights_file``."""
        tensors, places = [], self._places()
        for name, array in self._constants.items():
            if name in places:
                tensors.append(_external(name, array, *places[name]))
            else:
                tensors.append(onnx.numpy_helper.from_array(array, name))
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, tensors, self.doc
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS],
            ir_version=IR_VERSION,
            producer_name="qin-serving",
            functions=[block.proto() for block in self._blocks.values()],
        )

    def save(self, folder: Path) -> None:
        """Write ``NAME.onnx`` and ``NAME.weights``, and check the model."""
        with (folder / self.weights_file).open("wb") as file:
            for name, (weights, _) in self._places().items():
                if weights == self.weights_file:
                    array = self._constants[name]
                    file.write(array.data)
                    file.write(bytes(-array.nbytes % PAGE))
        path = folder / f"{self.name}.onnx"
        path.write_bytes(self.model().SerializeToString())
        onnx.checker.check_model(str(path), full_check=True)


def _external(name: str, array: NDArray[Any], file: str, offset: int) -> TensorProto:
    tensor = TensorProto(
        name=name,
        data_type=_KINDS[array.dtype.name],
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", file), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
