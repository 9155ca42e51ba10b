"""Health, metadata, configuration and statistics, by the real ``tritonclient``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from service.admission.loop_budget import QUIET_S
from tests.service.api.oip.raw import INFER, body, listed, refused
from tests.service.api.oip.triton import MODEL, Asked
from tests.service.in_process import client_of, opened
from tests.service.process import Service
from tests.service.world import World

Call = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["blocking", "asyncio"])
async def call(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[Call]:
    """``await call(method, …)`` of either client."""
    if request.param == "asyncio":
        client = triton_aio.InferenceServerClient(f"127.0.0.1:{service.port}")
    else:
        client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")

    async def call(method: str, *arguments: str) -> Any:
        result = getattr(client, method)(*arguments)
        return await result if inspect.isawaitable(result) else result

    yield call
    closing = client.close()
    if inspect.isawaitable(closing):
        await closing


async def test_the_server_is_alive_and_ready(call: Call) -> None:
    assert await call("is_server_live")
    assert await call("is_server_ready")
    for version in ("", "small-1", "active"):
        assert await call("is_model_ready", MODEL, version)
    assert not await call("is_model_ready", MODEL, "small-2")
    assert not await call("is_model_ready", "bert")


async def test_the_server_tells_what_it_speaks(call: Call) -> None:
    told = await call("get_server_metadata")
    assert told["name"] == "qin-serving"
    assert told["version"]
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(told["extensions"])


@pytest.mark.parametrize("version", ["", "small-1", "active"])
async def test_the_model_tells_its_tensors(call: Call, version: str) -> None:
    told = await call("get_model_metadata", MODEL, version)
    assert told["name"] == MODEL
    assert told["versions"] == ["small-1"]
    assert {t["name"]: (t["datatype"], t["shape"]) for t in told["inputs"]} == {
        "user_id": ("INT64", [1]),
        "item_id": ("INT64", [-1]),
        "history": ("INT64", [-1]),
        "likes_level": ("INT64", [-1]),
        "views_level": ("INT64", [-1]),
    }
    assert {t["name"]: (t["datatype"], t["shape"]) for t in told["outputs"]} == {
        "score": ("FP32", [-1]),
        "known": ("BOOL", [-1]),
    }


@pytest.mark.parametrize("version", ["", "small-1"])
async def test_the_configuration_says_what_may_be_left_out_and_what_the_limits_are(
    call: Call, version: str
) -> None:
    told = await call("get_model_config", MODEL, version)
    assert told["max_batch_size"] == 0
    assert [t["name"] for t in told["input"] if not t["optional"]] == ["user_id", "item_id"]
    assert told["output"][0] == {"name": "score", "data_type": "TYPE_FP32", "dims": [-1]}
    limits = {name: int(value["string_value"]) for name, value in told["parameters"].items()}
    assert limits["max_candidates"] == 5000
    assert limits["max_history"] == 12
    assert limits["likes_level_vocabulary"] == 11


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config"])
@pytest.mark.parametrize(("model", "version"), [("bert", ""), (MODEL, "small-2")])
async def test_what_is_not_loaded_is_a_404(
    call: Call, method: str, model: str, version: str
) -> None:
    with pytest.raises(InferenceServerException) as refusal:
        await call(method, model, version)
    assert refusal.value.status() == "404"
    with pytest.raises(InferenceServerException):
        await call("get_inference_statistics", model, version)


async def test_statistics_count_inferences_of_both_protocols(
    call: Call, tritonclient: triton.InferenceServerClient, client: httpx.Client, world: World
) -> None:
    (before,) = (await call("get_inference_statistics", MODEL))["model_stats"]
    asked = Asked(3, world.ids[:30])
    asked.scores(client)
    tritonclient.infer(MODEL, asked.inputs())
    with pytest.raises(InferenceServerException):
        tritonclient.infer(MODEL, asked.inputs(), timeout=1)
    await asyncio.sleep(3 * QUIET_S)  # beside scoring the statistics may be of a moment ago
    for arguments in ((MODEL, "small-1"), (MODEL, "active"), (MODEL,), ()):
        (after,) = (await call("get_inference_statistics", *arguments))["model_stats"]
        assert (after["name"], after["version"]) == (MODEL, "small-1")
        assert after["inference_count"] == before["inference_count"] + 2
        assert after["execution_count"] == before["execution_count"] + 2
        assert after["last_inference"] > before["last_inference"]
        for part, of in after["inference_stats"].items():
            earlier = before["inference_stats"][part]
            grown = {"fail": 1, "cache_hit": 0, "cache_miss": 0}.get(part, 2)
            assert of["count"] == earlier["count"] + grown
            assert (of["ns"] > earlier["ns"]) == bool(grown)


def scraped(client: httpx.Client) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines())


async def test_statistics_are_the_numbers_of_the_metrics(
    call: Call, client: httpx.Client, world: World
) -> None:
    Asked(3, world.ids[:30]).scores(client)
    (told,) = (await call("get_inference_statistics", MODEL))["model_stats"]
    shown = scraped(client)
    counts = 'qin_model_inferences_total{outcome="%s",version="small-1"}'
    seconds = 'qin_model_inference_seconds_total{part="%s",version="small-1"}'
    assert told["inference_count"] == float(shown[counts % "success"])
    for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        expected = float(shown[seconds % part])
        assert told["inference_stats"][part]["ns"] == pytest.approx(1e9 * expected, abs=1)
    inside = sum(told["inference_stats"][p]["ns"] for p in ("queue", "compute_infer"))
    assert inside < told["inference_stats"]["success"]["ns"]


async def test_the_parts_of_an_inference_are_within_its_time(world: World) -> None:
    """All stages of the service belong to a part; what belongs to no stage is the rest."""
    async with opened(world) as state, client_of(state) as client:
        content = body(listed("user_id", [3]), listed("item_id", world.ids[:9].tolist()))
        assert (await client.post(INFER, content=content)).status_code == 200
        (told,) = (await client.get("/v2/models/stats")).json()["model_stats"]
        parts = told["inference_stats"]
        within = sum(of["ns"] for name, of in parts.items() if name not in ("success", "fail"))
        assert 0 < within <= parts["success"]["ns"]
        assert parts["fail"] == {"count": 0, "ns": 0}


async def test_before_it_is_ready_only_its_life_is_told(world: World) -> None:
    async with opened(world) as state, client_of(state) as client:
        state.readiness.ready = False
        assert (await client.get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", f"/v2/models/{MODEL}/ready"):
            answer = await client.get(path)
            assert "waiting for" in refused(answer, 503)
            assert answer.headers["Retry-After"] == "1"


async def test_the_models_name_is_a_setting(world: World) -> None:
    async with opened(world, model_name="ranker") as state, client_of(state) as client:
        assert (await client.get("/v2/models/ranker")).json()["name"] == "ranker"
        assert "'ranker'" in refused(await client.get("/v2/models/qin"), 404)
        content = body(listed("user_id", [3]), listed("item_id", world.ids[:3].tolist()))
        answer = await client.post("/v2/models/ranker/infer", content=content)
        assert answer.json()["model_name"] == "ranker"
        (told,) = (await client.get("/v2/models/ranker/stats")).json()["model_stats"]
        assert (told["name"], told["inference_count"]) == ("ranker", 1)
