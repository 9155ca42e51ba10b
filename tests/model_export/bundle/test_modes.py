"""The mode that a ranker is fastest in here: what may be chosen, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_export.build import Int8, build
from model_export.bundle import modes, openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import QuantisationGate
from model_export.bundle.modes import Mode, candidates, choose, decided
from model_export.bundle.verify_modes import verify
from model_export.quality.random_rows import random_held_out
from training.qin import QIN

FP32, INT8 = Mode("fp32", "cpu"), Mode("int8", "cpu")
OPENVINO, BF16 = Mode("fp32", "openvino"), Mode("bf16", "openvino")
NONE: dict[str, str] = {}


@pytest.fixture(scope="module")
def quantised(network: QIN, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With an int8 ranker, forced past its gate."""
    int8 = Int8(random_held_out(network), force=True)
    return build(network, tmp_path_factory.mktemp("int8"), int8=int8)


def judged(bundle: Bundle, **changed: Any) -> Bundle:
    gate = bundle.manifest.quantisation
    assert isinstance(gate, QuantisationGate)
    changes = {"quantisation": gate.model_copy(update=changed)}
    return Bundle(bundle.path, bundle.manifest.model_copy(update=changes))


def test_another_mode_is_taken_from_ten_per_cent_on() -> None:
    for us, expected, reason in (
        ({FP32: 10.0, INT8: 9.1}, FP32, "no other mode is faster by 10% (int8 on cpu takes 0.91"),
        ({FP32: 10.0, INT8: 8.9}, INT8, "int8 on cpu: it takes 0.89 of the time of fp32 on cpu"),
        ({FP32: 10.0, INT8: 8.0, BF16: 3.0}, BF16, "bf16 on openvino: it takes 0.30"),
        ({FP32: 10.0, OPENVINO: 12.0, BF16: 9.5}, FP32, "bf16 on openvino takes 0.95"),
        ({OPENVINO: 10.0}, OPENVINO, "fp32 on openvino: no other mode may serve this bundle here"),
    ):
        found = decided(us, {"bf16 on cuda": "absent"})
        assert Mode(found.precision, found.provider) == expected
        assert reason in found.reason
        assert found.us_per_candidate == {str(mode): value for mode, value in us.items()}
        assert found.passed_over == {"bf16 on cuda": "absent"}


def test_shortlists_are_of_the_mode_that_makes_top_k_faster() -> None:
    failed = {"int8 on cpu": "its int8 ranker did not pass its gate"}
    for us, passed_over, precision, top_k in (
        ({FP32: 10.0, INT8: 4.0}, NONE, "int8", "int8"),
        ({FP32: 10.0, INT8: 8.5}, NONE, "int8", "fp32"),  # and rescoring takes another 1.0
        ({FP32: 10.0, INT8: 4.0}, failed, "fp32", "int8"),  # exact all the same
        ({FP32: 10.0, INT8: 4.0, BF16: 3.0}, failed, "bf16", "bf16"),
        ({FP32: 10.0, INT8: 3.0, BF16: 9.5}, failed, "fp32", "int8"),
        ({FP32: 10.0, OPENVINO: 8.0, INT8: 3.0}, failed, "fp32", "fp32"),  # bits of OpenVINO's
        ({FP32: 10.0}, NONE, "fp32", "fp32"),
    ):
        found = decided(us, dict(passed_over))
        assert (found.precision, found.top_k) == (precision, top_k)


def test_the_modes_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "is_installed", lambda: True)
    assert candidates("cpu") == [FP32, INT8]
    assert candidates("openvino") == [OPENVINO, BF16]
    assert candidates("auto") == [FP32, OPENVINO, INT8, BF16]
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    assert candidates("auto") == [FP32, INT8]


@pytest.fixture
def int8_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is the real thing; the clock is not."""

    def timed(runs: Any) -> dict[Mode, float]:
        for run in runs.values():
            run()
        return {mode: 1.0 if mode == FP32 else 0.5 for mode in runs}

    monkeypatch.setattr(modes, "timed", timed)


@pytest.mark.usefixtures("int8_is_fast")
def test_what_may_not_serve_is_passed_over_with_the_reason(
    quantised: Bundle, bundle: Bundle
) -> None:
    passed = judged(quantised, passed=True, forced=False)
    for subject, precision, reason in (
        (passed, "int8", None),
        (quantised, "fp32", "its int8 ranker did not pass its gate"),
        (bundle, "fp32", "the bundle has no int8 ranker"),
        (judged(passed, golden_logit_error=1e-6), "fp32", "this processor computes it differently"),
    ):
        found = choose(subject, "cpu", 16)
        assert (found.precision, found.provider) == (precision, "cpu")
        assert (reason or "") in found.passed_over.get("int8 on cpu", "")
        is_timed = reason in (None, "its int8 ranker did not pass its gate")
        assert ("int8 on cpu" in found.us_per_candidate) == is_timed
        assert found.top_k == ("int8" if is_timed else "fp32")


def test_what_fails_here_is_passed_over_unless_it_is_float32(
    quantised: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = modes._opened

    def failing(bundle: Bundle, mode: Mode) -> Any:
        if mode == broken:
            raise RuntimeError("no such instruction")
        return honest(bundle, mode)

    monkeypatch.setattr(modes, "_opened", failing)
    broken, passed = INT8, judged(quantised, passed=True, forced=False)
    found = choose(passed, "cpu", 16)
    assert found.passed_over == {"int8 on cpu": 'RuntimeError "no such instruction"'}
    broken = FP32
    with pytest.raises(RuntimeError, match="no such instruction"):
        choose(passed, "cpu", 16)


def test_the_real_clock_gives_every_mode_a_time(quantised: Bundle) -> None:
    found = choose(judged(quantised, passed=True, forced=False), "cpu", 64)
    assert set(found.us_per_candidate) == {"fp32 on cpu", "int8 on cpu"}
    assert all(us > 0 for us in found.us_per_candidate.values())


def test_a_damaged_bundle_is_refused_before_anything_is_timed(
    quantised: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError):
        verify(tmp_path, "cpu", "16")
    opened, difference, choice = verify(quantised.path, "cpu", "16")
    assert opened == quantised
    assert difference.cases == len(quantised.golden().probability)
    assert choice.precision == "fp32"  # its gate was forced
