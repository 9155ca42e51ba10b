"""Golden answers meet every case a service meets, and hide no error."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.golden import Golden
from model_export.bundle.runtime import FoldedModel
from model_export.quality.golden_cases import DENSE_SCALES, golden_answers, informative
from model_export.quality.random_network import random_network
from tests.model_export.schemas import SMALL, SMALL_SIZES


@pytest.fixture(scope="module")
def golden(bundle: Bundle) -> Golden:
    return bundle.golden()


def test_histories_run_from_empty_to_full(golden: Golden) -> None:
    lengths = {len(request.history) for request in golden.requests()}
    assert lengths == {0, 1, 2, 6, 11, 12}


def test_items_include_lists_of_padding_and_cold_identities(golden: Golden) -> None:
    candidates = golden.items[golden.candidates]
    histories = golden.items[golden.history]
    for rows in (candidates, histories):
        assert (rows["item_tags"] == 0).all(axis=1).any()
        assert (rows["item_id"] == 0).any()
        assert {50, *rows["item_id"][rows["item_id"] > 50]} <= set(rows["item_id"])
        assert (rows["item_id"] > 50).any()
        assert (rows["content"] == 0).all(axis=1).any()


def test_every_level_of_every_context_feature_is_asked(golden: Golden) -> None:
    assert set(golden.context[:, 0]) >= {*range(11), 11, 2**31 - 1}
    assert set(golden.context[:, 1]) >= {*range(7), 7, 2**31 - 1}


def test_saved_answers_read_back_the_same(golden: Golden, bundle: Bundle, tmp_path) -> None:
    golden.save(tmp_path / "golden.npz")
    again = Golden.load(tmp_path / "golden.npz")
    for one, other in zip(golden.requests(), again.requests(), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.probability, other.probability)
    assert again.items.dtype == SMALL.item_dtype


def test_a_nan_is_infinitely_far(golden: Golden, model: FoldedModel) -> None:
    asked = 0

    def exact(items, history, user):
        nonlocal asked
        asked += 1
        answer = model.exact(items, history, user)
        if asked == 3:
            answer[-1] = np.nan
        return answer

    difference = golden.compare(
        SimpleNamespace(
            items=model.items,
            history=model.history,
            in_context=model.in_context,
            user=model.user,
            exact=exact,
        )
    )
    assert difference.max_abs_error == np.inf
    assert difference.worst_case.startswith(list(golden.names)[2])


def test_the_worst_case_is_the_one_that_was_moved(golden: Golden, model: FoldedModel) -> None:
    moved = golden.probability.copy()
    moved[golden.candidate_offsets[4] + 2] += 0.25
    answers = {f: getattr(golden, f) for f in Golden.__dataclass_fields__}
    difference = Golden(**answers | {"probability": moved}).compare(model)
    assert difference.max_abs_error == pytest.approx(0.25, abs=1e-5)
    assert difference.worst_case.startswith(f"{golden.names[4]}: candidate 2 of ")
    assert difference.cases == len(moved)


def test_dense_inputs_shrink_until_answers_are_informative() -> None:
    """A network trained on small content vectors saturates on large ones."""
    network = random_network(SMALL, SMALL_SIZES)
    network.item_vector.embedding["content"].weight.data.mul_(30)
    golden = golden_answers(network)
    assert 0 < np.abs(golden.items["content"]).max() < 5 * DENSE_SCALES[3]
    assert informative(golden) > 0.5


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x93NUMPY"])
def test_unreadable_answers_are_refused_with_the_remedy(tmp_path, content: bytes) -> None:
    file = tmp_path / "golden.npz"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"golden\.npz: golden answers cannot be read.*rebuild"):
        Golden.load(file)
