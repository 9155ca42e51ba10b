"""An item with huge but finite numbers costs itself alone, at any magnitude and in every role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from feature_store import connect
from feature_store.schema import FeatureSchema
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import ItemVectors
from service.lifecycle.rollback_monitor import FEWEST_FAILURES, Bounds, RollbackWindow
from service.models.loaded_model import LoadedModel
from service.state import ServiceState
from tests.openvino import needs_bf16, needs_plugin
from tests.service.in_process import client_of, metric, opened
from tests.service.live import until
from tests.service.quantised import with_bf16, with_int8
from tests.service.world import SMALL, World, make_world

# With this network scores overflow by way of a history from 1e4 on, and by themselves from 1e6 on.
MAGNITUDES = (1.0, 30.0, 1e3, 1e4, 65504.0, 1e6, 1e10, 1e18, 1e30, 3e38)
ALWAYS, NEVER = 1e6, 30.0
HUGE = 10**12  # an id
NOBODY = 10**9  # a user without clicks


def wide(schema: FeatureSchema = SMALL) -> FeatureSchema:
    """The same with content in float32, which holds what overflows."""
    text = schema.to_yaml().replace("float16", "float32")
    return FeatureSchema.from_yaml(text, source="wide")


@pytest.fixture(scope="module")
def wide_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("wide"), wide(), items=200, users=4)


@pytest.fixture(scope="module")
def int8_world(wide_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_int8(wide_world, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def bf16_world(wide_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_bf16(wide_world, tmp_path_factory.mktemp("bf16"))


@dataclass(frozen=True, slots=True)
class Asking:
    """A loaded service, and whom it is asked by."""

    state: ServiceState
    client: httpx.AsyncClient

    @property
    def version(self) -> LoadedModel:
        assert self.state.registry.active is not None
        return self.state.registry.active

    @property
    def is_exact(self) -> bool:
        return self.version.model.precision == "fp32"

    async def put(self, of: float, item: int = HUGE) -> None:
        known = (await self.client.get("/v1/items/1")).json()
        known = known if "content" in known else self.example()
        values = {**known, "content": content(of)}
        answer = await self.client.put(f"/v1/items/{item}", json=values)
        assert answer.status_code == 204, answer.text

    def example(self) -> dict[str, Any]:
        schema = self.version.schema
        names = [f.name for f in (*schema.item, *schema.context)]
        return {name: [1] if name == "item_tags" else 1 for name in names}

    async def score(self, candidates: list[int], history: list[int], **more: int) -> dict[str, Any]:
        body = {"user_id": NOBODY, "candidates": candidates, "history": history, **more}
        answer = await self.client.post("/v1/score", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def blameless(self) -> bool:
        """No failure is on the version's account."""
        faults = metric(self.state, "qin_problems_total", problem="model-fault")
        return self.version.stats.failures == faults == 0


def content(of: float) -> list[float]:
    return [of if at % 2 else -of for at in range(6)]


@pytest.fixture(
    params=[
        "fp32 cpu",
        "int8 cpu",
        pytest.param("fp32 openvino", marks=needs_plugin),
        pytest.param("bf16 openvino", marks=needs_bf16),
    ]
)
async def asking(request: pytest.FixtureRequest, wide_world: World) -> AsyncIterator[Asking]:
    precision, provider = request.param.split()
    world = wide_world if precision == "fp32" else request.getfixturevalue(f"{precision}_world")
    chosen = {"precision": precision, "provider": provider}
    async with opened(world, **chosen) as state, client_of(state) as client:
        yield Asking(state, client)
        await client.delete(f"/v1/items/{HUGE}")


def readable(answer: dict[str, Any]) -> bool:
    """Whether HUGE is; all that is told of it agrees."""
    assert answer["unreadable_items"] in ([], [HUGE])
    for item, score in zip(answer["item_ids"], answer["scores"], strict=True):
        assert (score is None) == (item in answer["unreadable_items"])
    return not answer["unreadable_items"]


def of_others(answer: dict[str, Any]) -> list[float | None]:
    both = zip(answer["item_ids"], answer["scores"], strict=True)
    return [score for item, score in both if item != HUGE]


async def test_a_huge_item_costs_no_neighbour(asking: Asking, wide_world: World) -> None:
    """The others' scores are, to the bit, those of the request without it."""
    one, two, three, four = wide_world.ids[:4].tolist()
    for of in MAGNITUDES:
        await asking.put(of)
        without = (await asking.score([one, two], [three, four]))["scores"]
        among = await asking.score([one, HUGE, two], [three, four])
        past = await asking.score([one, two], [three, HUGE, four])
        both = await asking.score([one, HUGE, two], [three, HUGE, four])
        if asking.is_exact or not readable(among):
            assert of_others(among) == without, of
        else:  # in int8 a list shares a range, as long as its scores are ordinary ones
            assert of_others(among) == pytest.approx(without, abs=0.1), of
        for answer in (past, both):
            assert readable(answer) or of_others(answer) == without, of
        if of >= ALWAYS:
            assert not any(map(readable, (among, past, both))), of
            assert (among["degraded"], past["degraded"]) == (["items"], ["history"]), of
        if of <= NEVER:
            assert all(map(readable, (among, past, both))), of
    assert asking.blameless()


@pytest.fixture
def underived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found when rows are derived: all of it meets requests."""

    def finite(model: FoldedModel, items: ItemVectors) -> Any:
        return np.isfinite(items.vector).all(axis=1) & np.isfinite(items.row).all(axis=1)

    monkeypatch.setattr(FoldedModel, "scorable", finite)


@pytest.mark.usefixtures("underived")
async def test_what_meets_a_request_all_the_same_costs_no_neighbour(
    asking: Asking, wide_world: World
) -> None:
    """In lists that are cut into chunks too, and behind ``top_k`` and ``explain``."""
    candidates, past = wide_world.ids[:150].tolist(), wide_world.ids[150:155].tolist()
    for place in (0, 70, 149):
        candidates[place] = HUGE
    rest = [item for item in candidates if item != HUGE]
    for of in MAGNITUDES:
        await asking.put(of)
        without = (await asking.score(rest, past))["scores"]
        for history in (past, [*past[:2], HUGE, *past[2:]]):
            found = await asking.score(candidates, history)
            assert None not in of_others(found), of
            if of >= ALWAYS:
                assert not readable(found), of
                assert of_others(found) == without, of
            best = await asking.score(candidates, history, top_k=5, explain=3)
            assert None not in best["scores"], of
    assert asking.blameless()


@pytest.mark.usefixtures("underived")
async def test_of_large_items_that_meet_the_largest_are_left_out(
    asking: Asking, wide_world: World
) -> None:
    large, known = [HUGE + 1, HUGE + 2], wide_world.ids[:20].tolist()
    for item, of in zip(large, (1e17, 1e15), strict=True):
        await asking.put(of, item)
    await asking.put(2.0)
    history = [HUGE, large[0], *known[:3], large[1]]
    found = await asking.score(known, history)
    assert sorted(found["unreadable_items"]) == large
    assert found["scores"] == (await asking.score(known, [HUGE, *known[:3]]))["scores"]
    for item in large:
        await asking.client.delete(f"/v1/items/{item}")


@pytest.mark.parametrize("of", [ALWAYS, 3e38])
async def test_over_the_protocol_it_is_not_known(
    asking: Asking, wide_world: World, of: float
) -> None:
    one, two, three = wide_world.ids[:3].tolist()
    await asking.put(of)
    given = {"user_id": [NOBODY], "item_id": [one, HUGE, two], "history": [HUGE, three]}
    inputs = [
        {"name": name, "datatype": "INT64", "shape": [len(data)], "data": data}
        for name, data in given.items()
    ]
    answer = await asking.client.post("/v2/models/qin/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert outputs["known"] == [True, False, True]
    without = (await asking.score([one, two], [three]))["scores"]
    assert outputs["score"] == pytest.approx([without[0], 0, without[1]], abs=1e-7)


async def test_it_is_found_while_the_table_is_filled_and_when_it_comes_later(
    tmp_path: Path,
) -> None:
    world = await asyncio.to_thread(make_world, tmp_path, wide(), items=40, users=2)
    one, two = world.ids[:2].tolist()
    await elsewhere(world, 1e10)
    async with opened(world) as state, client_of(state) as client:
        asking = Asking(state, client)
        table = asking.version.table
        assert table.count == 40
        without = await asking.score([one], [two])
        among = await asking.score([one, HUGE], [two, HUGE])
        assert (of_others(among), readable(among)) == (without["scores"], False)
        await elsewhere(world, 1.0)
        await until(lambda: table.count == 41)
        assert readable(await asking.score([one, HUGE], [two]))
        await elsewhere(world, 1e10)
        await until(lambda: table.count == 40)
        assert not readable(await asking.score([one, HUGE], [two]))


async def elsewhere(world: World, of: float) -> None:
    """Another process puts it."""
    rows = world.rows[:1].copy()
    rows["content"] = content(of)
    store = await connect(world.store, world.schema)
    await store.put_items(np.array([HUGE]), rows)
    await store.close()


async def test_it_takes_no_version_back(asking: Asking, wide_world: World) -> None:
    """Though it is in all that is asked for from a switch on."""
    await asking.put(1e10)
    version = asking.version
    version.stats.mark()
    for _ in range(FEWEST_FAILURES + 1):
        await asking.score([int(wide_world.ids[0]), HUGE], [HUGE])
    assert RollbackWindow(version, version, Bounds(60.0, 0.0, 0.0)).violation() is None
