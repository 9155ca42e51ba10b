"""The check of a GPU: whole on the CPU, in a small size; skipped with the reason without a GPU."""

from __future__ import annotations

import json
from functools import partial

import onnxruntime
import pytest

from tests.gpu import check
from tests.model_export.schemas import SMALL, SMALL_SIZES

WITHOUT = check.missing()


@pytest.fixture
def argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["check", "--json", "--seconds", "0.05"])


@pytest.mark.skipif(WITHOUT is None, reason="there is a GPU: nothing is missing")
@pytest.mark.usefixtures("argv")
def test_without_a_gpu_it_says_why_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 0
    assert json.loads(capsys.readouterr().out) == {"skipped": WITHOUT}


def test_a_provider_that_is_listed_and_cannot_start_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [check.CUDA])
    if WITHOUT is not None:
        assert (check.missing() or "").startswith("needs a GPU: ")


def test_its_figures_are_whole() -> None:
    found = check.check(SMALL, sizes=SMALL_SIZES, provider="cpu", lengths=(4, 64), seconds=0.02)
    assert found["met"] is True
    assert found["max_abs_difference_from_cpu"] == 0
    assert found["golden_max_abs_error"] < 1e-5
    assert set(found["candidates_per_s"]) == {"4", "64"}
    assert all(rate["gpu"] > 0 for rate in found["candidates_per_s"].values())


@pytest.mark.usefixtures("argv")
@pytest.mark.parametrize("worst", [2e-5, float("inf")])
def test_an_answer_beyond_its_bound_is_exit_code_1(
    worst: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = partial(check.check, SMALL, sizes=SMALL_SIZES, provider="cpu", lengths=(4,))
    monkeypatch.setattr(check, "missing", lambda: None)
    monkeypatch.setattr(check, "_errors", lambda *_: worst)
    monkeypatch.setattr(check, "check", lambda schema, seconds: small(seconds=seconds))
    assert check.main() == 1
    assert json.loads(capsys.readouterr().out)["met"] is False


@pytest.mark.usefixtures("argv")
def test_a_gpu_that_fails_is_exit_code_1_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "missing", lambda: None)
    monkeypatch.setattr(check.FeatureSchema, "microlens", lambda: SMALL)
    if WITHOUT is not None:
        assert check.main() == 1
        assert "provider=cuda" in json.loads(capsys.readouterr().out)["reason"]


@pytest.mark.skipif(WITHOUT is not None, reason=WITHOUT or "")
@pytest.mark.usefixtures("argv")
def test_a_gpu_answers_as_the_network_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provider"] == "cuda"
    assert found["max_abs_difference_from_cpu"] < 1e-5
