"""The yardstick itself: the published formulation as a graph, and the count of its work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from feature_store.schema import FeatureSchema
from model_export.graphs.multiply_adds import multiply_adds
from model_export.graphs.published import published
from model_export.quality.golden_cases import network_items
from model_export.quality.random_network import random_network
from tests.model_export.answers import in_float64, random_request
from tests.model_export.schemas import MANY_CONTEXTS, SMALL, SMALL_SIZES, WITHOUT_IDENTITY


@pytest.mark.parametrize("schema", [SMALL, WITHOUT_IDENTITY, MANY_CONTEXTS], ids=lambda s: s.name)
def test_the_published_graph_answers_as_the_network(schema: FeatureSchema, tmp_path: Path) -> None:
    network = random_network(schema, SMALL_SIZES, seed=5)
    published(network).save(tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "published.onnx")
    request = random_request(schema, length=schema.history_length - 1)
    request.context[:] = np.minimum(request.context, [f.vocabulary - 1 for f in schema.context])
    with torch.inference_mode():
        vectors = network.item_vector(network_items(schema, request.items))[1:].numpy()
    count, full = len(request.candidates), schema.history_length
    history = np.zeros((count, full, schema.item_vector_width), np.float32)
    history[:, 1:] = vectors[request.history]
    mask = np.repeat([[0.0] + [1.0] * (full - 1)], count, axis=0).astype(np.float32)
    feeds = {"vector": vectors[request.candidates], "history": history, "mask": mask}
    feeds |= {f.name: request.context[:, i].copy() for i, f in enumerate(schema.context)}
    answer = session.run(["probability"], feeds)[0]
    np.testing.assert_allclose(answer, in_float64(network, request), atol=2e-6)


def test_multiply_adds_counts_products_and_nothing_else() -> None:
    def value(name: str, *shape: str | int):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),  # C·3·5
        helper.make_node("Gemm", ["a", "v"], ["b"], transB=1),  # C·5·7
        helper.make_node("Add", ["b", "b"], ["c"]),
        helper.make_node("Gemm", ["c", "a"], ["d"], transA=1),  # 7·C·5
        helper.make_node("MatMul", ["y", "z"], ["e"]),  # 2·4·L·6
    ]
    inputs = [value("x", "C", 3), value("w", 3, 5), value("v", 7, 5)]
    inputs += [value("y", 2, 4, "L"), value("z", 2, "L", 6)]
    outputs = [value("d", 7, 5), value("e", 2, 4, 6)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs))
    onnx.checker.check_model(model)
    assert multiply_adds(model, {"C": 10, "L": 9}) == 150 + 350 + 350 + 432
