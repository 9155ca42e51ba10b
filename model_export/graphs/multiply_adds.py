"""Counts dense multiply-adds over the matrix products of an ONNX graph.

A 1×1 convolution over all channels is a matrix product; a depthwise one is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
import onnx.inliner


def multiply_adds(model: onnx.ModelProto, dimensions: Mapping[str, int]) -> int:
    """Count multiply-adds of every MatMul, Gemm and 1×1 Conv, with these sizes of dimensions."""
    fixed = onnx.inliner.inline_local_functions(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in dimensions:
                dimension.dim_value = dimensions[dimension.dim_param]
    graph = onnx.shape_inference.infer_shapes(fixed, strict_mode=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return sum(_product(node, shapes) for node in graph.node)


def _product(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Elements of the output times the width summed over."""
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * _channels(node, shapes)
    if node.op_type not in ("MatMul", "Gemm"):
        return 0
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    summed = shapes[node.input[0]][0 if transposed else -1]
    return math.prod(shapes[node.output[0]]) * summed


def _channels(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Channels summed over per output of a 1×1 convolution; 0 for a depthwise one."""
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    assert shapes[node.input[1]][2:] == (1, 1)
    return 0 if groups > 1 else shapes[node.input[1]][1]
