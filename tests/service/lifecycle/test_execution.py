"""``precision`` and ``provider``: what a version is computed in, where, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnxruntime
import pytest
from structlog.testing import capture_logs

from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, ProviderError
from service.lifecycle.execution import Execution
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.quantised import with_int8
from tests.service.world import World

WITHOUT_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
no_gpu = pytest.mark.skipif(
    not WITHOUT_CUDA, reason="this onnxruntime is built with CUDA: there is nothing to miss"
)


@pytest.fixture(scope="module")
def quantised(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_int8(world, tmp_path_factory.mktemp("int8"))


def judged(bundle: Bundle, **changed: Any) -> Bundle:
    """The same graphs, and another gate in the manifest."""
    gate = bundle.manifest.quantisation.model_copy(update=changed)
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"quantisation": gate}))


@pytest.fixture
def passed(quantised: World) -> Bundle:
    return judged(quantised.bundle, passed=True, forced=False)


def test_another_arithmetic_than_the_gates_is_not_taken(
    passed: Bundle,
) -> None:
    elsewhere = judged(passed, golden_logit_error=1e-6)
    with pytest.raises(BundleError, match="this processor computes it differently"):
        Execution("int8").open(elsewhere)


def test_int8_that_was_forced_is_served_when_asked_for_and_the_log_says_so(
    quantised: World,
) -> None:
    with capture_logs() as told:
        assert Execution("int8").open(quantised.bundle).precision == "int8"
    assert told[-1]["event"] == "int8 was forced past its gate"
    assert told[-1]["log_level"] == "warning"
    gate = quantised.bundle.manifest.quantisation
    assert told[-1]["mean_abs_delta_p"] == gate.mean_abs_delta_p


def test_int8_of_a_bundle_without_it_is_refused_with_the_remedy(world: World) -> None:
    with pytest.raises(BundleError, match=r"has no ranker\.int8\.onnx.*build --int8"):
        Execution("int8").open(world.bundle)


@no_gpu
def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(world: World) -> None:
    with pytest.raises(ProviderError, match=r"provider=cuda: .* built without CUDA; install"):
        Execution(provider="cuda").open(world.bundle)


@no_gpu
async def test_without_a_gpu_auto_computes_on_the_cpu_and_says_so(
    world: World,
) -> None:
    with capture_logs() as told:
        await compute_without_a_gpu(world)
    assert "no GPU: computing on the CPU" in [line["event"] for line in told]


async def compute_without_a_gpu(world: World) -> None:
    async with opened(world, provider="auto") as state, client_of(state) as client:
        ready = (await client.get("/readyz")).json()
        assert (ready["precision"], ready["provider"]) == ("fp32", "cpu")
        assert "built without CUDA" in ready["provider_fallback"]
        assert metric(state, "qin_provider_fallback") == 1
        assert (await ask(state, user_id=1, candidates=world.ids[:3].tolist())).status_code == 200


async def test_readyz_says_what_it_computes_in(quantised: World, world: World) -> None:
    for asked, precision, served in (("int8", "int8", quantised), ("auto", "fp32", world)):
        async with opened(served, precision=asked) as state, client_of(state) as client:
            ready = (await client.get("/readyz")).json()
            assert ready["rounding_accepted"] is False
            assert (ready["precision"], ready["provider"]) == (precision, "cpu")
            assert ready["provider_fallback"] is None
            assert metric(state, "qin_provider_fallback") == 0


async def test_whoever_insists_on_int8_needs_no_gpu(quantised: World) -> None:
    model = Execution("int8", "auto").open(quantised.bundle)
    assert (model.precision, model.placement.provider) == ("int8", "cpu")
    assert model.placement.fallback is None


async def test_a_service_that_cannot_compute_as_told_does_not_start(world: World) -> None:
    with pytest.raises(BundleError, match=r"ranker\.int8"):
        async with opened(replace(world), precision="int8"):
            pass
