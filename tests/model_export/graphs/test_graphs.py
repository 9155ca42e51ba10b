"""The written graphs, run by onnxruntime, against the PyTorch network in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from feature_store.schema import Categorical, FeatureSchema
from model_export.build import build
from model_export.bundle.bundle import Bundle
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.sessions import open_session
from model_export.graphs.context_tables import context_tables
from model_export.graphs.folded_network import FoldedContext
from model_export.quality.random_network import random_network
from tests.model_export.answers import candidates, folded, in_float64, random_request
from tests.model_export.schemas import ALL, MANY_CONTEXTS, SMALL, SMALL_SIZES
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


def test_the_graphs_are_built_of_the_papers_blocks(bundle: Bundle) -> None:
    ranker = onnx.load(bundle.graph("ranker"), load_external_data=False)
    calls = [node.op_type for node in ranker.graph.node if node.domain == "qin"]
    assert calls == [
        "TargetAttention",
        "FirstQuadraticLayer",
        "CandidatesAsPixels",
        "QuadraticLayer",
        "QuadraticLayer",
    ]
    assert all(function.doc_string for function in ranker.functions)
    tower = onnx.load(bundle.graph("item_tower"), load_external_data=False)
    assert [f.name for f in tower.functions] == ["ItemVector"]


def test_no_slope_is_a_prelu_which_the_runtime_runs_slowly(bundle: Bundle) -> None:
    model = onnx.load(bundle.graph("ranker"), load_external_data=False)
    operators = {node.op_type for node in onnx.inliner.inline_local_functions(model).graph.node}
    assert "PRelu" not in operators
    assert {"Conv", "LeakyRelu"} <= operators


@pytest.mark.parametrize("schema", [SMALL, MANY_CONTEXTS], ids=["pixels", "rows"])
@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.25, 1.0, 1.5])
def test_any_slope_is_exact_in_both_forms(
    schema: FeatureSchema, slope: float, tmp_path: Path
) -> None:
    network = random_network(schema, SMALL_SIZES, seed=6)
    for layer in network.layers:
        layer.activation.weight.data.fill_(slope)
    model = FoldedModel(build(network, tmp_path))
    request = random_request(schema, length=3)
    assert_allclose(folded(model, request), in_float64(network, request), atol=2e-6)


def test_weights_lie_beside_the_graph_aligned_to_pages(bundle: Bundle) -> None:
    for name in bundle.manifest.graphs:
        graph = onnx.load(bundle.graph(name), load_external_data=False).graph
        external = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        assert external
        for tensor in external:
            where = {entry.key: entry.value for entry in tensor.external_data}
            assert where["location"] == f"{name}.weights"
            assert int(where["offset"]) % 4096 == 0


def test_the_ranker_as_rows_shares_its_weights_and_answers_the_same(
    bundle: Bundle, network: QIN, model: FoldedModel
) -> None:
    own = (bundle.path / "ranker.rows.weights").stat().st_size
    assert own < (bundle.path / "ranker.weights").stat().st_size / 2
    graph = onnx.load(bundle.graph("ranker.rows"), load_external_data=False)
    operators = {node.op_type for node in onnx.inliner.inline_local_functions(graph).graph.node}
    assert "Conv" not in operators
    rows = open_session(bundle.graph("ranker.rows"), 1)
    for length in (0, 5):
        request = random_request(network.schema, length=length, count=40)
        vectors = model.items(request.items)
        asked, history = candidates(model, request), vectors.vector[request.history]
        feeds = model.feeds(asked, model.history(history))
        names = ["probability", "logit", "attention"]
        for found, expected in zip(
            rows.run(names, feeds), model._ranker.run(names, feeds), strict=True
        ):
            assert_allclose(found, expected, atol=2e-6, rtol=1e-5)


def test_a_network_without_pixels_has_one_ranker(tmp_path: Path) -> None:
    network = random_network(MANY_CONTEXTS, SMALL_SIZES)
    assert network.schema.network_width % 16
    assert not build(network, tmp_path).graph("ranker.rows").exists()


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
