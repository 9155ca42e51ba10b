"""The network's blocks as named ONNX functions: a graph opened in Netron reads like the paper.

The runtime inlines them when it loads the graph, before it optimises.

A matrix product is written as ``Gemm`` on rows (C, X), or as a 1×1 convolution over candidates as
pixels (1, X, 1, C). Where X is a multiple of the channel block the second is faster
(docs/performance.md): onnxruntime keeps such activations in blocks of channels, reaches more of
the processor's peak, and runs a layer's affine steps inside depthwise convolutions.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import AttributeProto, helper

OPSET = 21
DOMAIN = "qin"
CONTRIB = "com.microsoft"
OPSETS = (("", OPSET), (DOMAIN, 1), (CONTRIB, 1))
CHANNEL_BLOCK = 16  # onnxruntime's, with AVX-512; a multiple of its 8 elsewhere


class Block:
    """One function: its signature, and its nodes in execution order."""

    def __init__(
        self,
        name: str,
        inputs: list[str],
        outputs: list[str],
        doc: str,
        attributes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.inputs, self.outputs, self.doc = name, inputs, outputs, doc
        self._attributes = attributes
        self._nodes: list[onnx.NodeProto] = []

    def node(
        self,
        operator: str,
        inputs: list[str],
        output: str,
        *,
        domain: str = "",
        given: dict[str, str] | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node. ``given``: its attributes that are float attributes of the function."""
        node = helper.make_node(operator, inputs, [output], domain=domain, **attributes)
        for attribute, name in (given or {}).items():
            node.attribute.append(
                AttributeProto(name=attribute, ref_attr_name=name, type=AttributeProto.FLOAT)
            )
        self._nodes.append(node)
        return output

    def integers(self, values: list[int], output: str) -> str:
        """Add a constant list."""
        return self.node("Constant", [], output, value_ints=values)

    def proto(self) -> onnx.FunctionProto:
        return helper.make_function(
            DOMAIN,
            self.name,
            self.inputs,
            self.outputs,
            self._nodes,
            [helper.make_opsetid(domain, version) for domain, version in OPSETS],
            list(self._attributes),
            doc_string=self.doc,
        )


def target_attention() -> Block:
    """target (C, D), keys (L, D), values (L, D) -> pool (C, D), weight (C, L)."""
    block = Block(
        "TargetAttention",
        ["target", "keys", "values"],
        ["pool", "weight"],
        "Adaptive sparse target attention: a = ReLU(t·k); pool = Σ a v + t.",
    )
    score = block.node("Gemm", ["target", "keys"], "score", transB=1)  # (C, L)
    block.node("Relu", [score], "weight")
    block.node("Gemm", ["weight", "values", "target"], "pool")  # (C, D)
    return block


def target_attention_biased() -> Block:
    """As ``target_attention``, with bias (1, D) -> also weight_one (C, L+1), its last column 1."""
    block = Block(
        "TargetAttention",
        ["target", "keys", "values", "bias"],
        ["pool", "weight", "weight_one"],
        "Adaptive sparse target attention: a = ReLU(t·k); pool = Σ a v + t + b_o, the bias as one "
        "value more, of attention 1.",
    )
    score = block.node("Gemm", ["target", "keys"], "score", transB=1)  # (C, L)
    weight_one = _with_one(block, block.node("Relu", [score], "weight"))
    more = block.node("Concat", ["values", "bias"], "values_bias", axis=0)  # (L+1, D)
    block.node("Gemm", [weight_one, more, "target"], "pool")  # (C, D)
    return block


def column_of_ones() -> Block:
    """weight (C, L) -> weight_one (C, L+1), its last column 1."""
    block = Block("WithOne", ["weight"], ["weight_one"], "The attention, and a column of ones.")
    _with_one(block, "weight")
    return block


def _with_one(block: Block, weight: str) -> str:
    pads = block.integers([0, 0, 0, 1], "pads")  # one column after the last
    one = block.node("Constant", [], "one", value_float=1.0)
    return block.node("Pad", [weight, pads, one], "weight_one")


def first_layer() -> Block:
    """x (C, X), weight (C, L), rows (L, X), row (C, X), offset (X) -> out (C, X)."""
    block = Block(
        "FirstQuadraticLayer",
        ["x", "weight", "rows", "row", "offset"],
        ["out"],
        "A quadratic layer whose product is split by input block: h = Σ a w + row, the rows of "
        "the history's items and of the candidate itself.",
        ("slope",),
    )
    block.node("Gemm", ["weight", "rows", "row"], "h")
    _row_major_tail(block)
    return block


def first_layer_of_user() -> Block:
    """As ``first_layer``, with weight_one (C, L+1) and user_row (1, X).

    The user's row is one row of history more, of attention 1: an addition would be another pass
    over (C, X).
    """
    block = Block(
        "FirstQuadraticLayer",
        ["x", "weight_one", "rows", "user_row", "row", "offset"],
        ["out"],
        "A quadratic layer whose product is split by input block: h = Σ a w + u + row, the rows "
        "of the history's items, of the user and the request, and of the candidate itself.",
        ("slope",),
    )
    more = block.node("Concat", ["rows", "user_row"], "rows_user", axis=0)  # (L+1, X)
    block.node("Gemm", ["weight_one", more, "row"], "h")
    _row_major_tail(block)
    return block


def user_of_each() -> Block:
    """weight_one (C, L+1), whose last column is 1, and user (1, W) -> out (C, W)."""
    block = Block("UserOfEach", ["weight_one", "user"], ["out"], "The user, for every candidate.")
    last, end = block.integers([-1], "last"), block.integers([2**31], "end")
    ones = block.node("Slice", ["weight_one", last, end, block.integers([1], "axis")], "ones")
    block.node("Mul", [ones, "user"], "out")
    return block


def quadratic_rows(*, transposed: bool = False) -> Block:
    """x (C, X), weight (X, X), bias (X), offset (X) -> out (C, X).

    ``transposed``: the weight is (outputs, inputs), as a convolution's.
    """
    block = _quadratic("x + LeakyReLU(x ⊙ (W x + b) + offset); W holds rows and batch norm.")
    attributes: dict[str, Any] = {"transB": 1} if transposed else {}
    block.node("Gemm", ["x", "weight", "bias"], "h", **attributes)
    _row_major_tail(block)
    return block


def quadratic_int8() -> Block:
    """As ``quadratic_rows``; weight (X, X) int8 with scale (X), x quantised dynamically."""
    block = _quadratic(
        "x + LeakyReLU(x ⊙ (W x + b) + offset); W int8 per column, x quantised to uint8 by its "
        "own range.",
        "scale",
    )
    inputs = ["x", "weight", "scale", "", "bias"]
    block.node("DynamicQuantizeMatMul", inputs, "h", domain=CONTRIB)
    _row_major_tail(block)
    return block


def _quadratic(doc: str, *more: str) -> Block:
    inputs = ["x", "weight", *more, "bias", "offset"]
    return Block("QuadraticLayer", inputs, ["out"], doc, ("slope",))


def _row_major_tail(block: Block) -> None:
    z = block.node("Add", [block.node("Mul", ["x", "h"], "product"), "offset"], "z")
    active = block.node("LeakyRelu", [z], "active", given={"alpha": "slope"})
    block.node("Add", ["x", active], "out")


def to_pixels(width: int) -> Block:
    """x (C, X), ones (X, 1, 1, 1) -> out (1, X, 1, C).

    The depthwise product by one changes no bit; it makes the runtime keep x in blocks of channels.
    """
    block = Block(
        "CandidatesAsPixels",
        ["x", "ones"],
        ["out"],
        "(C, X) to (1, X, 1, C): there a 1×1 convolution is a matrix product.",
    )
    image = block.node("Unsqueeze", ["x", block.integers([0, 1], "axes")], "image")  # (1, 1, C, X)
    moved = block.node("Transpose", [image], "moved", perm=[0, 3, 1, 2])
    block.node("Conv", [moved, "ones"], "out", group=width, kernel_shape=[1, 1])
    return block


def quadratic_pixels(width: int) -> Block:
    """x (1, X, 1, C), weight (X, X, 1, 1), per-channel rest -> out (1, X, 1, C).

    With z = x ⊙ h + offset and slope α, LeakyReLU(z) = αz + ReLU((1−α) z). The runtime fuses a ReLU
    or an addition into a depthwise product with bias, but not a LeakyRelu, which would be a pass of
    its own.
    """
    inputs = ["x", "weight", "bias", "slope", "slope_offset", "rest", "rest_offset"]
    block = Block(
        "QuadraticLayer",
        inputs,
        ["out"],
        "x + LeakyReLU(x ⊙ (W x + b) + offset) = (x + αz) + ReLU((1−α) z); W holds rows and "
        "batch norm. slope α and rest 1−α per channel; their offsets α·offset, (1−α)·offset.",
    )
    point: dict[str, Any] = {"kernel_shape": [1, 1]}
    h = block.node("Conv", ["x", "weight", "bias"], "h", **point)
    product = block.node("Mul", ["x", h], "product")
    depthwise: dict[str, Any] = point | {"group": width}
    rest = block.node("Conv", [product, "rest", "rest_offset"], "positive", **depthwise)
    bent = block.node("Relu", [rest], "bent")
    line = block.node("Conv", [product, "slope", "slope_offset"], "line", **depthwise)
    straight = block.node("Add", [line, "x"], "straight")
    block.node("Add", [bent, straight], "out")
    return block
