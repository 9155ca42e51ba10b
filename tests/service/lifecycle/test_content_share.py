"""Versions that name the encoder of their contents are served with those, if there are enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pytest

from feature_store import FeatureStore, connect
from feature_store.contents import Contents, Origin
from feature_store.contract import Ids, ItemRows
from feature_store.options import StoreOptions
from model_export.build import build
from model_export.bundle.manifest import ContentOrigin
from tests.feature_store.redis_servers import until
from tests.service.parity import TOLERANCE
from tests.service.process import PATIENCE_MS, Service, serving, start
from tests.service.world import World, make_world, on_another_store

FEATURE = "content"
OLD, NEW, NEWEST = "00000000000000aa", "bbbbbbbbbbbbbbbb", "0c0c0c0c0c0c0c0c"
ITEMS, HAVE_OLD, HAVE_NEW = 60, 57, 30


@dataclass(frozen=True, slots=True)
class Rollout:
    """A store in the middle of a rollout, a service of it, and what each version reads."""

    world: World
    vectors: dict[str, np.ndarray]  # (N, 6) by digest; 0 where an item has none
    service: Service
    client: httpx.Client
    admin: httpx.Client

    def tell(self, path: str) -> httpx.Response:
        return self.admin.post(f"/admin/models/{path}")

    def model(self, version: str) -> dict[str, object]:
        shown: dict[str, object] = self.admin.get(f"/admin/models/{version}").json()
        return shown

    def expected(self, digest: str, candidates: Ids) -> np.ndarray:
        rows = self.world.rows.copy()
        rows[FEATURE] = self.vectors[digest]
        world = World(
            self.world.network,
            self.world.models,
            self.world.bundle,
            self.world.store,
            self.world.ids,
            rows,
            self.world.users,
        )
        return world.answer(self.world.users[1], candidates)

    def score(self, version: str, candidates: Ids) -> dict[str, object]:
        body = {"user_id": 1, "candidates": candidates.tolist(), "model_version": version}
        answer = self.client.post("/v1/score", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found


def patched(store: FeatureStore, item: int, vector: np.ndarray, digest: str) -> object:
    def change(row: ItemRows) -> None:
        row[FEATURE] = vector

    return store.patch_item(item, change, Origin(FEATURE, digest))


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def rollout(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rollout]:
    """57 of 60 items have contents of OLD, 30 have those of NEW, too; none was given."""
    folder = tmp_path_factory.mktemp("rollout")
    world = make_world(folder, items=ITEMS, users=4)
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        world = on_another_store(world, f"redis://127.0.0.1:{server.port}?prefix=rollout")
    vectors = {OLD: np.zeros((ITEMS, 6), np.float16), NEW: np.zeros((ITEMS, 6), np.float16)}
    random = np.random.default_rng(1)
    vectors[OLD][:HAVE_OLD] = random.normal(size=(HAVE_OLD, 6))
    vectors[NEW][:HAVE_NEW] = random.normal(size=(HAVE_NEW, 6))

    async def fill() -> None:
        store = await connect(world.store, world.schema, options=StoreOptions(budget_ms=5000))
        rows = world.rows.copy()
        rows[FEATURE] = vectors[OLD]
        contents = Contents.all_of(Origin(FEATURE, OLD), HAVE_OLD, rows.dtype)
        await store.put_items(world.ids[:HAVE_OLD], rows[:HAVE_OLD], contents)
        await store.put_items(world.ids[HAVE_OLD:], rows[HAVE_OLD:])
        for at in range(HAVE_NEW):
            assert await patched(store, int(world.ids[at]), vectors[NEW][at], NEW)
        await store.close()

    asyncio.run(fill())
    for version, digest in (("of-old", OLD), ("of-new", NEW), ("of-newest", NEWEST)):
        origin = ContentOrigin(feature=FEATURE, digest=digest)
        build(world.network, world.models, version=version, content=origin)
    variables = {
        "QIN_MODEL_POLICY": "manual",
        "QIN_CONTENT_SHARE": "0.5",
        "QIN_DEADLINE_MS": PATIENCE_MS,
        "QIN_STORE_TIMEOUT_MS": PATIENCE_MS,
    }
    with (
        serving(world.models, world.store, **variables) as service,
        service.client() as client,
        service.admin() as admin,
    ):
        yield Rollout(world, vectors, service, client, admin)


def test_two_versions_are_served_from_one_store_each_with_its_own_contents(
    rollout: Rollout,
) -> None:
    for version in ("of-old", "of-new"):
        assert rollout.tell(f"{version}/load").status_code == 200, rollout.model(version)
    candidates = rollout.world.ids[[0, 10, 29, 30, 45, 58]]
    for version, digest, lacking in (("of-old", OLD, [58]), ("of-new", NEW, [30, 45, 58])):
        found = rollout.score(version, candidates)
        expected = rollout.expected(digest, candidates)
        assert found["scores"] == pytest.approx(expected, abs=TOLERANCE)
        assert found["without_content"] == rollout.world.ids[lacking].tolist()
        said = rollout.model(version)["content"]
        items = {OLD: HAVE_OLD, NEW: HAVE_NEW}[digest]
        assert said == {"feature": FEATURE, "digest": digest, "items": items}


def test_a_version_without_enough_contents_is_refused_with_the_numbers(rollout: Rollout) -> None:
    refused = rollout.tell("of-newest/load")
    assert refused.status_code == 422
    reason = refused.json()["detail"]
    assert f"contents {NEWEST} of content, which 0 of 60 items have (0.0%)" in reason
    assert "50.0% are needed (QIN_CONTENT_SHARE)" in reason
    shown = rollout.model("of-newest")
    assert shown["state"] == "failed"
    assert "QIN_CONTENT_SHARE" in str(shown["reason"])
    assert "content" not in shown


def test_an_item_is_named_until_its_content_is_written(rollout: Rollout) -> None:
    assert rollout.tell("of-new/load").status_code == 200
    at, vector = 40, np.arange(6, dtype=np.float16)
    candidates = rollout.world.ids[[at]]
    assert rollout.score("of-new", candidates)["without_content"] == candidates.tolist()

    async def write() -> None:
        store = await connect(rollout.world.store, rollout.world.schema)
        assert await patched(store, int(candidates[0]), vector, NEW)
        await store.close()

    asyncio.run(write())  # by another process: the change feed brings it
    until(lambda: rollout.score("of-new", candidates)["without_content"] == [], "it is there")
    rollout.vectors[NEW][at] = vector
    found = rollout.score("of-new", candidates)["scores"]
    assert found == pytest.approx(rollout.expected(NEW, candidates), abs=TOLERANCE)


def test_the_probe_and_the_metrics_say_so(rollout: Rollout) -> None:
    assert rollout.tell("of-old/activate").status_code == 200
    content = rollout.client.get("/readyz").json()["content"]
    assert (content["digest"], content["items"]) == (OLD, HAVE_OLD)
    before = counted(rollout.client)
    rollout.score("of-old", rollout.world.ids[56:])
    assert counted(rollout.client) == before + 3


def counted(client: httpx.Client) -> float:
    name = "qin_items_without_content_total "
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(name))


def test_a_start_passes_over_a_version_without_enough_contents(rollout: Rollout) -> None:
    """The newest asks for contents that no item has."""
    variables = {"QIN_DEADLINE_MS": PATIENCE_MS, "QIN_CONTENT_SHARE": "0.5", "QIN_FLEET": "alone"}
    models, store = rollout.world.models, rollout.world.store
    with serving(models, store, **variables) as service, service.client() as client:
        ready = client.get("/readyz").json()
    assert ready["model_version"] == "of-new"
    assert ready["passed_over"] == ["of-newest"]


def test_a_pinned_version_without_enough_contents_ends_the_start(rollout: Rollout) -> None:
    variables = {"QIN_MODEL_POLICY": "pin:of-newest", "QIN_CONTENT_SHARE": "0.5"}
    models, store = str(rollout.world.models), rollout.world.store
    service = start("--bundle", models, "--store", store, **variables)
    assert service.process.wait(60) != 0
    assert "QIN_CONTENT_SHARE" in service.log.read_text()
    service.remove()
