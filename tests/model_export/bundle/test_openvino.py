"""The ranker on OpenVINO: in float32 the CPU's answers, in bfloat16 near them, else refused."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model_export.build import Bf16, build
from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, GateError, ProviderError
from model_export.bundle.graphs import Precision, for_openvino
from model_export.bundle.reduced_golden import check_same_arithmetic, golden_logit_error
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.sessions import Placement
from model_export.bundle.vectors import Candidates, Floats, HistoryRows
from model_export.bundle.verify_openvino import verify
from model_export.quality import gate
from model_export.quality.random_rows import random_held_out
from tests.model_export.answers import candidates, random_request
from tests.openvino import INSTALLED, SUPPORTED, needs_bf16, needs_plugin
from training.qin import QIN

LENGTHS, COUNTS = (0, 1, 5, 12), (1, 2, 15, 16, 17, 128, 200)


@pytest.mark.skipif(SUPPORTED or not INSTALLED, reason="needs the plugin and another processor")
def test_a_processor_that_the_plugin_lacks_is_said_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ProviderError, match="does not support this processor; set provider"):
            openvino.device()
    assert not openvino.is_usable()


def asked(model: FoldedModel, count: int, length: int) -> tuple[Candidates, HistoryRows]:
    request = random_request(model.schema, length=length, count=count, seed=length)
    vectors = model.items(request.items)
    return candidates(model, request), model.history(vectors.vector[request.history])


@pytest.fixture(scope="module")
def judged(network: QIN, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With a gate of bf16, forced."""
    held_out = random_held_out(network)
    return build(network, tmp_path_factory.mktemp("bf16"), bf16=Bf16(held_out, force=True))


@pytest.fixture(scope="module")
def bf16(judged: Bundle) -> FoldedModel:
    return FoldedModel(judged, provider="openvino", precision="bf16", callers=2)


def test_without_the_extra_it_is_refused_in_one_line_with_the_remedy(
    bundle: Bundle, network: QIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "MODULE", "onnxruntime_ep_that_is_absent")
    remedy = r"^provider=openvino: requires the extra openvino: pip install [^\n]*$"
    for precision in ("fp32", "bf16"):
        low: Precision = "bf16" if precision == "bf16" else "fp32"
        with pytest.raises(ProviderError, match=remedy):
            FoldedModel(bundle, provider="openvino", precision=low)
    with pytest.raises(ProviderError, match=remedy):
        build(network, tmp_path, bf16=Bf16(random_held_out(network)))
    with pytest.raises(ProviderError, match=remedy):
        verify(bundle.path)
    assert list(tmp_path.iterdir()) == []


def test_bf16_elsewhere_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="bf16 runs on openvino only; use fp32 on cpu"):
        FoldedModel(bundle, precision="bf16")
    with pytest.raises(BundleError, match="int8 runs on the CPU only; use fp32 on openvino"):
        FoldedModel(bundle, precision="int8", provider=Placement("openvino"))


def test_a_bundle_without_a_gate_of_bf16_has_the_manifest_of_earlier_releases(
    bundle: Bundle,
) -> None:
    assert b"bf16" not in (bundle.path / "manifest.json").read_bytes()
    assert bundle.manifest.gate("bf16") is None


@needs_plugin
def test_a_processor_without_bfloat16_is_refused_in_one_line(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "has_bf16", lambda: False)
    with pytest.raises(ProviderError, match=r"^precision=bf16: this processor has no bfloat16.*$"):
        FoldedModel(bundle, provider="openvino", precision="bf16")


@needs_plugin
def test_in_float32_it_answers_as_the_cpu_does(bundle: Bundle, model: FoldedModel) -> None:
    there = FoldedModel(bundle, provider="openvino")
    assert there.placement == Placement("openvino")
    for length in LENGTHS:
        for count in COUNTS:
            items, history = asked(model, count, length)
            np.testing.assert_allclose(
                there.rank(items, history), model.rank(items, history), atol=1e-5
            )
    verify(bundle.path)


@needs_plugin
def test_a_bundle_of_an_earlier_release_runs_its_one_ranker(bundle: Bundle, tmp_path: Path) -> None:
    assert for_openvino(bundle) == bundle.graph("ranker.rows")
    files = {k: v for k, v in bundle.manifest.files.items() if not k.startswith("ranker.rows")}
    earlier = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    assert for_openvino(earlier) == bundle.graph("ranker")  # what is not listed was not checked
    FoldedModel(earlier, provider="openvino")


@needs_bf16
def test_bf16_is_near_float32_and_leaves_float32_its_bits(
    bf16: FoldedModel, judged: Bundle, model: FoldedModel
) -> None:
    worst = 0.0
    for length in LENGTHS:
        for count in COUNTS:
            items, history = asked(model, count, length)
            exact = model.rank(items, history)
            np.testing.assert_array_equal(bf16.exact(items, history), exact)
            error = float(np.abs(bf16.rank(items, history) - exact).max())
            assert error < 0.05
            worst = max(worst, error)
            if length:
                mine, other = (m.explain(items, history, 3) for m in (bf16, model))
                np.testing.assert_array_equal(mine.share, other.share)
    assert worst > 1e-5  # float32's rounding is below
    assert bf16.placement == Placement("openvino")
    assert bf16.has_shortlists
    assert verify(judged.path)[0] == judged


@needs_bf16
def test_the_same_question_has_the_same_bits_from_threads_at_once(bf16: FoldedModel) -> None:
    items, history = asked(bf16, 128, 12)
    first = bf16.rank(items, history)
    asked(bf16, 17, 5)

    def ten_times(_: int) -> list[Floats]:
        return [bf16.rank(items, history) for _ in range(10)]

    with ThreadPoolExecutor(2) as threads:
        for answers in threads.map(ten_times, range(2)):
            for answer in answers:
                np.testing.assert_array_equal(answer, first)


@needs_bf16
def test_threads_are_not_pinned(bf16: FoldedModel) -> None:
    before = os.sched_getaffinity(0)
    bf16.rank(*asked(bf16, 16, 5))
    allowed = {frozenset(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")}
    assert allowed == {frozenset(before)}


@needs_bf16
def test_the_gate_of_bf16_is_measured_and_repeated_here(judged: Bundle, bf16: FoldedModel) -> None:
    found, golden = judged.manifest.bf16, judged.golden()
    assert found is not None
    assert 0 < found.mean_abs_delta_p < found.max_abs_delta_p
    assert bf16.logit_bound == found.top_k_bound
    assert found.golden_logit_error == golden_logit_error(bf16, golden)
    assert check_same_arithmetic(bf16, golden, found) == found.golden_logit_error
    elsewhere = found.model_copy(update={"golden_logit_error": 1e-6})
    with pytest.raises(BundleError, match="this processor computes it differently"):
        check_same_arithmetic(bf16, golden, elsewhere)
    assert judged.manifest.quantisation is None
    assert "ranker.int8.onnx" not in judged.manifest.files


@needs_bf16
def test_what_fails_the_gate_of_bf16_is_not_published(
    network: QIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "FILLED_LISTS", 8)
    monkeypatch.setattr(gate, "MOST_MEAN_DELTA_P", 0.0)
    with pytest.raises(GateError, match=r"bf16 differs too much on random rows.*without --bf16"):
        build(network, tmp_path, bf16=Bf16(random_held_out(network)))
    assert list(tmp_path.iterdir()) == []
