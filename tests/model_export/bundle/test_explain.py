"""Which history items a candidate's pooled interest came from."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from model_export.bundle.explain import strongest
from model_export.bundle.runtime import FoldedModel
from model_export.quality.golden_cases import network_items
from tests.model_export.answers import candidates, random_request
from training.qin import QIN


def test_shares_are_those_of_the_networks_own_pooled_interest(
    network: QIN, model: FoldedModel
) -> None:
    request = random_request(model.schema, length=9, count=12, seed=2)
    vectors = model.items(request.items)
    history = model.history(vectors.vector[request.history])
    found = model.explain(candidates(model, request), history, 9)

    attention = network.attention.double()
    with torch.inference_mode():
        own = network.double().item_vector(
            {
                name: value.double() if value.is_floating_point() else value
                for name, value in network_items(network.schema, request.items).items()
            }
        )[1:]
        past = own[request.history]
        for row, candidate in enumerate(request.candidates):
            score = attention.W_k(past) @ attention.W_q(own[candidate]) * attention.scale
            terms = score.relu()[:, None] * attention.W_o(attention.W_v(past))
            share = terms.norm(dim=1) / terms.norm(dim=1).sum().clamp_min(1e-300)
            order = np.argsort(-share.numpy(), kind="stable")
            assert_allclose(found.share[row], share.numpy()[order], atol=1e-5)
    network.float()


def test_no_history_explains_nothing(model: FoldedModel) -> None:
    request = random_request(model.schema, length=0, count=3)
    history = model.history(np.zeros((0, model.schema.item_vector_width), np.float32))
    found = model.explain(candidates(model, request), history, 5)
    assert found.position.shape == found.share.shape == (3, 0)


@given(
    items=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    top=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_item_in_several_places_has_the_sum_of_their_shares(
    items: list[int], top: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    distinct, same = np.unique(items, return_inverse=True)
    value = random.normal(size=(len(distinct), 3)).astype(np.float32)
    attention = random.exponential(size=(2, len(items))).astype(np.float32)
    found = strongest(attention, value[same], top, same)
    for row in range(2):
        expected = np.zeros(len(distinct))
        for place, item in enumerate(same):
            expected[item] += attention[row, place] * np.linalg.norm(value[item])
        expected /= expected.sum()
        assert_allclose(found.share[row], np.sort(expected)[::-1][:top], rtol=1e-4)
        assert_allclose(found.share[row], expected[found.position[row]], rtol=1e-4)
