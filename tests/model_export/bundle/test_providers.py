"""Where graphs run: asserted, padded to a few sizes on a GPU, and told when it is elsewhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, ProviderError
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.sessions import PROVIDERS, Placement, open_session, place
from model_export.bundle.size_buckets import (
    MOST_FIXED,
    BucketedSession,
    SessionPool,
    SizedPools,
    bucket,
)
from tests.model_export.answers import candidates, folded, random_request

CUDA = PROVIDERS["cuda"]
BUILT_WITH = onnxruntime.get_available_providers()


def usable_gpu() -> str | None:
    """Why there is none."""
    if CUDA not in BUILT_WITH:
        return f"needs a GPU: this onnxruntime is built with {', '.join(BUILT_WITH)} alone"
    try:
        onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda")
    except Exception as error:
        return f"needs a GPU: {error}"
    return None


WITHOUT = usable_gpu()
on_gpu = pytest.mark.skipif(WITHOUT is not None, reason=WITHOUT or "")
without_gpu = pytest.mark.skipif(WITHOUT is None, reason="there is a GPU: nothing is missing")


@given(size=st.integers(1, 100_000))
def test_a_bucket_holds_its_size_and_is_one_of_few(size: int) -> None:
    found = bucket(size)
    assert size <= found < max(2 * size, 17)
    assert found & (found - 1) == 0
    assert bucket(0) == 0


@given(count=st.integers(1, 40), length=st.integers(0, 12), seed=st.integers(0, 999))
def test_padding_changes_no_answer(
    model: FoldedModel, bundle: Bundle, count: int, length: int, seed: int
) -> None:
    """On the CPU's own memory: the padding and binding are the same as on a GPU."""
    padded = BucketedSession(open_session(bundle.graph("ranker"), 1), "cpu")
    request = random_request(model.schema, length=length, count=count, seed=seed)
    vectors = model.items(request.items)
    history = model.history(vectors.vector[request.history])
    items = candidates(model, request)
    outputs = ["probability", "logit", "attention"]
    found = padded.run(outputs, model.feeds(items, history))
    assert [array.shape for array in found] == [(count,), (count,), (count, length)]
    np.testing.assert_allclose(found[0], model.exact(items, history), atol=1e-6)
    np.testing.assert_allclose(found[1], model.logits(items, history), atol=1e-5)


def test_a_session_that_was_put_elsewhere_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the runtime does without a word where the driver fails."""
    honest = onnxruntime.InferenceSession

    def silently_elsewhere(graph: Any, options: Any, providers: Any) -> Any:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        return honest(graph, options, providers=[PROVIDERS["cpu"]])

    monkeypatch.setattr(onnxruntime, "InferenceSession", silently_elsewhere)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    with pytest.raises(ProviderError, match=r"put ranker\.onnx on CPUExecutionProvider instead"):
        open_session(bundle.graph("ranker"), 1, "cuda")
    assert "instead" in (place(bundle.graph("ranker"), "auto", 1).fallback or "")


def test_sessions_are_opened_once_for_each_number_of_candidates(
    bundle: Bundle, model: FoldedModel
) -> None:
    opened: list[int | None] = []

    def pool(size: int | None) -> SessionPool:
        opened.append(size)
        sizes = {} if size is None else {"C": size}
        return SessionPool([open_session(bundle.graph("ranker"), 1, sizes=sizes)])

    sized = BucketedSession(SizedPools(pool), least={"C": 32})
    asked = random_request(bundle.schema, length=5, count=MOST_FIXED + 1)
    items = model.items(asked.items)
    all_of_them = model.in_context(items.take(asked.candidates), asked.context)
    history = model.history(items.vector[asked.history])

    def same(count: int) -> None:
        feeds = model.feeds(all_of_them.part(0, count), history)
        (found,) = sized.run(["logit"], feeds)
        assert len(found) == count
        np.testing.assert_allclose(found, model._ranker.run(["logit"], feeds)[0], atol=1e-4)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(same, [1, 32, 2, 33, 64, 40, MOST_FIXED, MOST_FIXED + 1]))
    assert opened[0] is None
    assert sorted(size for size in opened[1:] if size is not None) == [32, 64, MOST_FIXED]


@without_gpu
def test_without_a_gpu_cuda_is_refused_and_auto_says_why_not(bundle: Bundle) -> None:
    with pytest.raises(ProviderError, match="set provider=cpu"):
        FoldedModel(bundle, provider="cuda")
    model = FoldedModel(bundle, provider="auto")
    assert model.placement.provider == "cpu"
    assert "provider=cuda" in (model.placement.fallback or "")


def test_what_is_decided_is_not_decided_again(bundle: Bundle) -> None:
    decided = Placement("cpu", fallback="tried before")
    assert FoldedModel(bundle, provider=decided).placement is decided
    assert place(bundle.graph("ranker"), "cpu", 1) == Placement("cpu")


@on_gpu
def test_a_gpu_answers_as_the_cpu_does(bundle: Bundle, model: FoldedModel) -> None:
    gpu = FoldedModel(bundle, provider="cuda")
    assert gpu.placement == Placement("cuda")
    for length in (0, 1, 5, 12):
        for count in (1, 15, 16, 17, 200):
            request = random_request(model.schema, length=length, count=count, seed=length)
            np.testing.assert_allclose(folded(gpu, request), folded(model, request), atol=1e-5)
    with pytest.raises(BundleError, match="runs on the CPU only"):
        FoldedModel(bundle, provider="cuda", precision="int8")
