"""The written graphs, run by onnxruntime, against the PyTorch network in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from feature_store.schema import Categorical, FeatureSchema
from model_export.build import build
from model_export.bundle import Bundle
from model_export.context_tables import context_tables
from model_export.folded import FoldedContext
from model_export.random_network import random_network
from model_export.runtime import FoldedModel
from tests.model_export.answers import folded, in_float64, random_request
from tests.model_export.schemas import ALL, SMALL_SIZES
from training.qin import QIN, QINSizes


@pytest.mark.parametrize("schema", ALL, ids=lambda schema: schema.name)
@pytest.mark.parametrize(
    "sizes", [SMALL_SIZES, QINSizes(attention_width=3, layers=1, rows=1)], ids=["deep", "shallow"]
)
def test_any_schema_and_depth_answers_as_the_network(
    schema: FeatureSchema, sizes: QINSizes, tmp_path: Path
) -> None:
    network = random_network(schema, sizes, seed=3)
    model = FoldedModel(build(network, tmp_path))
    for length in range(schema.history_length + 1):
        request = random_request(schema, length=length, seed=length)
        assert_allclose(folded(model, request), in_float64(network, request), atol=2e-6)


def test_an_empty_history_is_an_ordinary_input_of_every_graph(
    network: QIN, model: FoldedModel
) -> None:
    request = random_request(network.schema, length=0)
    rows = model.history(np.zeros((0, network.schema.item_vector_width), np.float32))
    assert rows.keys.shape == rows.values.shape == (0, 24)
    assert rows.rows.shape == (0, network.schema.network_width)
    assert_allclose(folded(model, request), in_float64(network, request), atol=2e-6)


def test_no_items_and_no_candidates_are_answered_by_nothing(model: FoldedModel) -> None:
    request = random_request(model.schema, length=3, count=0)
    assert folded(model, request).shape == (0,)
    assert model.items(np.zeros(0, model.schema.item_dtype)).vector.shape == (0, 24)


def test_the_order_of_the_history_does_not_matter(model: FoldedModel) -> None:
    request = random_request(model.schema, length=12)
    before = folded(model, request)
    request.history[:] = request.history[::-1].copy()
    assert_allclose(folded(model, request), before, atol=1e-6)


def test_slopes_go_out_as_leaky_relu_with_the_trained_slope(network: QIN, bundle: Bundle) -> None:
    graph = onnx.load(bundle.graph("ranker"), load_external_data=False).graph
    slopes = [node.attribute[0].f for node in graph.node if node.op_type == "LeakyRelu"]
    assert_allclose(slopes, [layer.activation.weight.item() for layer in network.layers])
    assert "PRelu" not in {node.op_type for node in graph.node}


def test_nothing_in_the_ranker_has_more_than_two_dimensions(bundle: Bundle) -> None:
    model = onnx.load(bundle.graph("ranker"), load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in graph.value_info}
    assert len(ranks) >= len(graph.node) - 2
    assert max(ranks.values()) == 2


def test_weights_lie_beside_the_graph_aligned_to_pages(bundle: Bundle) -> None:
    for name in ("item_tower", "history_tower", "ranker"):
        graph = onnx.load(bundle.graph(name), load_external_data=False).graph
        external = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        assert external
        for tensor in external:
            where = {entry.key: entry.value for entry in tensor.external_data}
            assert where["location"] == f"{name}.weights"
            assert int(where["offset"]) % 4096 == 0


@given(
    vocabularies=st.lists(st.integers(2, 9), min_size=1, max_size=5),
    joint_rows=st.integers(1, 200),
    seed=st.integers(0, 2**32 - 1),
)
def test_joint_context_tables_hold_every_combination(
    vocabularies: list[int], joint_rows: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    features = [
        FoldedContext(
            Categorical(name=f"f{i}", vocabulary=n, width=i + 1),
            random.normal(size=(n, i + 1)),
            random.normal(size=(n, 3)),
        )
        for i, n in enumerate(vocabularies)
    ]
    levels = [int(random.integers(n)) for n in vocabularies]
    embedding, row, at = [], np.zeros(3), 0
    for table in context_tables(features, joint_rows):
        assert len(table.row) <= joint_rows or len(table.names) == 1
        index = 0
        for vocabulary in table.vocabularies:
            index, at = index * vocabulary + levels[at], at + 1
        embedding.append(table.embedding[index])
        row += table.row[index]
    expected = [f.embedding[level] for f, level in zip(features, levels, strict=True)]
    assert_allclose(np.concatenate(embedding), np.concatenate(expected))
    assert_allclose(row, sum(f.row[level] for f, level in zip(features, levels, strict=True)))
