"""Writes the second output of the float32 graphs: the content of each text."""

from __future__ import annotations

from model_export.graphs.onnx_writer import GraphWriter
from text.runtime.content import ContentMap
from text.runtime.packed_graph import CONTENT, EMBEDDING


def write_content(g: GraphWriter, content: ContentMap, shape: list[str | int]) -> None:
    """embedding (*shape, D) -> content (*shape, C), of an item that has this text alone."""
    part = content.of_text
    weight = g.constant(f"{CONTENT}.weight", part.weight)
    product = g.node("MatMul", [EMBEDDING, weight], f"{CONTENT}.product")
    g.node("Add", [product, g.constant(f"{CONTENT}.bias", part.bias)], CONTENT)
    g.output(CONTENT, "float32", [*shape, content.about.size])
