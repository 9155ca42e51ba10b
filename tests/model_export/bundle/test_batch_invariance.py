"""Whether float32 scores depend on how a list is cut is tried, and not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_export.build import Int8, build
from model_export.bundle.batch_invariance import is_batch_invariant
from model_export.bundle.bundle import Bundle
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import Candidates, Floats, HistoryRows
from model_export.quality.random_network import random_network
from model_export.quality.random_rows import random_held_out
from tests.model_export.schemas import SMALL, SMALL_SIZES


class OtherKernelFor:
    """Another last bit in calls that ``is_other`` picks by their length."""

    def __init__(self, model: FoldedModel, is_other: Callable[[int], bool]) -> None:
        self._model, self._is_other = model, is_other
        self.schema, self.history = model.schema, model.history

    def exact(self, items: Candidates, history: HistoryRows) -> Floats:
        score = self._model.exact(items, history)
        return np.nextafter(score, np.float32(1)) if self._is_other(len(items)) else score


def test_onnxruntimes_kernels_are_batch_invariant_with_one_thread(bundle: Bundle) -> None:
    assert FoldedModel(bundle).is_batch_invariant
    assert not FoldedModel(bundle, threads=2).is_batch_invariant


@pytest.mark.parametrize(
    "is_other",
    [
        lambda length: length == 2,
        lambda length: length < 16,
        lambda length: length < 100,
        lambda length: length % 2 == 1,
    ],
)
def test_another_kernel_for_some_lengths_is_found(
    model: FoldedModel, bundle: Bundle, is_other: Callable[[int], bool]
) -> None:
    items = model.items(bundle.golden().items)
    assert is_batch_invariant(model, items)
    assert not is_batch_invariant(OtherKernelFor(model, is_other), items)


def test_where_they_are_not_top_k_is_scored_in_float32_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(SMALL, SMALL_SIZES, seed=1)
    bundle = build(network, tmp_path, int8=Int8(random_held_out(network), force=True))
    assert FoldedModel(bundle, precision="int8").has_shortlists
    monkeypatch.setattr("model_export.bundle.runtime.is_batch_invariant", lambda *_: False)
    assert not FoldedModel(bundle, precision="int8").has_shortlists
