"""What serving sees of a model: shapes, unknown indices, cold items, threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from model_export.build import build
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.runtime import FoldedModel
from model_export.quality.random_network import random_network
from tests.model_export.answers import candidates, folded, random_request
from tests.model_export.schemas import SMALL_SIZES, WIDE, WITHOUT_IDENTITY


def test_shapes_and_kinds_are_those_of_the_contract(model: FoldedModel) -> None:
    request = random_request(model.schema, length=5, count=7)
    D, X = model.schema.item_vector_width, model.schema.network_width
    vectors = model.items(request.items)
    assert (vectors.vector.shape, vectors.row.shape) == ((30, D), (30, X))
    history = model.history(vectors.vector[request.history])
    assert (history.keys.shape, history.values.shape) == ((5, D), (5, D))
    assert history.rows.shape == (5, X)
    answer = folded(model, request)
    assert answer.shape == (7,)
    kinds = {a.dtype for a in (vectors.vector, vectors.row, history.keys, history.rows, answer)}
    assert kinds == {np.dtype(np.float32)}
    assert model.version == "small-1"


@pytest.mark.parametrize("unknown", [50, 51, 2**31 - 1, -1, -(2**31)])
def test_an_index_the_model_never_saw_counts_as_zero(model: FoldedModel, unknown: int) -> None:
    rows = random_request(model.schema, length=0).items
    for name in ("item_id", "item_tags"):
        absent, beyond = rows.copy(), rows.copy()
        absent[name], beyond[name] = 0, unknown
        assert_array_equal(model.items(beyond).vector, model.items(absent).vector)


@pytest.mark.parametrize("unknown", [11, 2**31 - 1, -1])
def test_a_context_level_the_model_never_saw_counts_as_zero(
    model: FoldedModel, unknown: int
) -> None:
    request = random_request(model.schema, length=3)
    request.context[:, 0] = 0
    absent = folded(model, request)
    request.context[:, 0] = unknown
    assert_array_equal(folded(model, request), absent)


def test_cold_items_are_those_without_a_known_identity(model: FoldedModel) -> None:
    rows = np.zeros(5, model.schema.item_dtype)
    rows["item_id"] = [0, 1, 49, 50, -1]
    assert model.cold(rows).tolist() == [True, False, False, True, True]


def test_without_an_identity_no_item_is_cold(tmp_path) -> None:
    model = FoldedModel(build(random_network(WITHOUT_IDENTITY, SMALL_SIZES), tmp_path))
    assert not model.cold(np.zeros(3, WITHOUT_IDENTITY.item_dtype)).any()


def test_probability_is_the_sigmoid_of_the_logit(model: FoldedModel) -> None:
    request = random_request(model.schema, length=4)
    vectors = model.items(request.items)
    arguments = (candidates(model, request), model.history(vectors.vector[request.history]))
    logits = model.logits(*arguments).astype(np.float64)
    np.testing.assert_allclose(model.rank(*arguments), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_threads_share_one_model_without_mixing_answers(model: FoldedModel) -> None:
    requests = [random_request(model.schema, length=n % 13, seed=n) for n in range(64)]
    alone = [folded(model, request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            together = list(pool.map(lambda request: folded(model, request), requests))
            for one, other in zip(alone, together, strict=True):
                assert_array_equal(one, other)


@pytest.fixture(scope="module")
def of_width_400(tmp_path_factory: pytest.TempPathFactory) -> FoldedModel:
    return FoldedModel(build(random_network(WIDE, seed=1), tmp_path_factory.mktemp("wide")))


@pytest.mark.parametrize("name", ["model", "of_width_400"])
@given(data=st.data())
def test_a_float32_score_has_the_same_bits_however_its_list_is_cut_down_to_two(
    name: str, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    model: FoldedModel = request.getfixturevalue(name)
    length, seed = data.draw(st.integers(0, 64)), data.draw(st.integers(0, 2**32 - 1))
    asked = random_request(model.schema, length=length, count=300, seed=seed)
    items = candidates(model, asked)
    history = model.history(model.items(asked.items).vector[asked.history])
    whole = model.rank(items, history)
    edges = [0]
    while edges[-1] < 300:
        edges.append(edges[-1] + data.draw(st.integers(2, 150)))
    edges[-1] = 300
    if edges[-1] - edges[-2] < 2:
        del edges[-2]
    parts = [model.rank(items.part(*span), history) for span in pairwise(edges)]
    assert model.is_batch_invariant
    assert_array_equal(np.concatenate(parts), whole)


def test_a_damaged_graph_is_refused_with_its_name(copied: Bundle) -> None:
    copied.graph("ranker").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"ranker\.onnx: .* cannot load it: .*rebuild"):
        FoldedModel(copied)


def test_serving_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, model_export.bundle.bundle, model_export.bundle.runtime, "
        "model_export.bundle.verify, model_export.__main__; "
        "print([m for m in ('torch', 'onnx', 'pandas', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_probability_is_in_its_bounds_also_where_the_runtimes_sigmoid_is_not(
    model: FoldedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rounding:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.array([1.0000001, 0.5, -1e-9, np.nan], np.float32)]

    vectors = model.items(random_request(model.schema, length=0).items)
    history = model.history(vectors.vector[:0])
    monkeypatch.setattr(model, "_ranker", Rounding())
    for scored in (model.rank(vectors, history), model.exact(vectors, history)):
        assert_array_equal(scored, np.array([1, 0.5, 0, np.nan], np.float32))
