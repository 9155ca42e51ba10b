"""A service that computes on OpenVINO, in float32 or bfloat16, and one that cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.modes import choose
from service import settings
from service.artifacts import sandbox
from service.artifacts.sandbox import SandboxLimits
from service.lifecycle.execution import Execution
from service.settings import Settings
from tests.openvino import needs_bf16, needs_plugin
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.quantised import with_bf16
from tests.service.world import World


@pytest.fixture(scope="module")
def judged(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_bf16(world, tmp_path_factory.mktemp("bf16"))


def with_gate(bundle: Bundle, **changed: Any) -> Bundle:
    assert bundle.manifest.bf16 is not None
    gate = bundle.manifest.bf16.model_copy(update=changed)
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"bf16": gate}))


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"precision": "bf16"}, "QIN_PRECISION: bf16 requires QIN_PROVIDER=openvino or auto"),
        ({"precision": "bf16", "provider": "auto"}, "requires the extra openvino: pip install"),
        ({"provider": "openvino"}, "QIN_PROVIDER: openvino requires the extra openvino"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_with_the_remedy(
    chosen: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=reason):
        Settings(**chosen)


@needs_plugin
def test_a_bundle_without_a_gate_of_bf16(world: World) -> None:
    with pytest.raises(BundleError, match=r"was not judged in bf16; build it .*--bf16"):
        Execution("bf16", "openvino").open(world.bundle)
    found = choose(world.bundle, "openvino", 16)
    assert (found.precision, found.provider) == ("fp32", "openvino")
    assert found.passed_over == {"bf16 on openvino": "the bundle was built without --bf16"}
    model = Execution("auto", "openvino").open(world.bundle, found)
    assert (model.precision, model.placement.provider) == ("fp32", "openvino")


@needs_bf16
def test_auto_measures_bf16_if_its_gate_passed(judged: World) -> None:
    passed = with_gate(judged.bundle, passed=True, forced=False)
    failed = with_gate(judged.bundle, passed=False, forced=True)
    elsewhere = with_gate(passed, golden_logit_error=1e-6)
    assert set(choose(passed, "openvino", 16).us_per_candidate) == {
        "fp32 on openvino",
        "bf16 on openvino",
    }
    for bundle, reason in (
        (failed, "its bf16 ranker did not pass its gate"),
        (elsewhere, "this processor computes it differently"),
    ):
        assert reason in choose(bundle, "openvino", 16).passed_over["bf16 on openvino"]
    with pytest.raises(BundleError, match="this processor computes it differently"):
        Execution("bf16", "auto").open(elsewhere)


@needs_bf16
def test_bf16_decides_for_openvino_and_a_forced_one_is_logged(judged: World) -> None:
    with capture_logs() as told:
        failed = with_gate(judged.bundle, passed=False, forced=True)
        model = Execution("bf16", "auto", threads=2).open(failed)
    assert (model.precision, model.placement.provider) == ("bf16", "openvino")
    assert told[-1]["event"] == "bf16 was forced past its gate"


@needs_bf16
async def test_a_service_in_bf16_says_so_and_its_best_are_float32s(
    judged: World, world: World
) -> None:
    candidates = world.ids[:100].tolist()
    body = {"user_id": 3, "candidates": candidates}
    async with opened(world) as plain:
        all_exact = (await ask(plain, **body)).json()
        best = (await ask(plain, **body, top_k=10, explain=2)).json()
        assert metric(plain, "qin_bf16") == 0
    async with opened(judged, precision="bf16", provider="openvino") as state:
        async with client_of(state) as client:
            ready = (await client.get("/readyz")).json()
        assert (ready["precision"], ready["provider"]) == ("bf16", "openvino")
        assert (metric(state, "qin_bf16"), metric(state, "qin_int8")) == (1, 0)
        every = (await ask(state, **body)).json()
        apart = np.abs(np.array(every["scores"]) - all_exact["scores"])
        assert 1e-6 < apart.max() < 0.1
        found = (await ask(state, **body, top_k=10, explain=2)).json()
        for name in ("item_ids", "scores", "explanations"):
            assert found[name] == best[name]
        assert 10 <= metric(state, "qin_top_k_rescored_total") < 100
        empty = (await ask(state, user_id=3, history=[], candidates=candidates[:1])).json()
        assert 0 <= empty["scores"][0] <= 1


@needs_plugin
async def test_a_service_in_float32_on_openvino_answers_as_on_the_cpu(world: World) -> None:
    body = {"user_id": 3, "candidates": world.ids[:100].tolist()}
    async with opened(world) as plain:
        expected = (await ask(plain, **body)).json()["scores"]
    async with opened(world, provider="openvino") as state:
        async with client_of(state) as client:
            ready = (await client.get("/readyz")).json()
        assert (ready["precision"], ready["provider"]) == ("fp32", "openvino")
        found = (await ask(state, **body)).json()["scores"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@needs_plugin
def test_the_sandbox_proves_a_bundle_for_openvino_apart(judged: World) -> None:
    limits = SandboxLimits(4096 << 20, 120)  # the default of QIN_INSPECTION_MEMORY_MB
    kind = sandbox.on_openvino()
    child = sandbox.start(judged.bundle, limits, 0, kind)
    sandbox.wait_for_verdict(judged.bundle, child, limits, kind)
    sandbox.note_proved(judged.bundle)
    assert sandbox.is_proved(judged.bundle)
    assert not sandbox.is_proved(judged.bundle, kind)
    sandbox.note_proved(judged.bundle, kind)
    assert sandbox.is_proved(judged.bundle, kind)
