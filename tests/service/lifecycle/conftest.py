"""A service of this folder's own, with two good versions to swap between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import numpy as np
import pytest

from feature_store.codec import by_name
from feature_store.contract import Ids
from tests.service.parity import TOLERANCE
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.world import SMALL, SMALL_SIZES, World, make_world, random_published
from training.qin import QIN


@dataclass(frozen=True, slots=True)
class Swapping:
    """A running service and the truth about its versions."""

    world: World
    networks: dict[str, QIN]
    service: Service
    client: httpx.Client
    admin: httpx.Client

    def answer(self, version: str, user: int, candidates: Ids) -> np.ndarray:
        network = self.networks[version]
        rows = by_name(self.world.rows, network.schema.item_dtype)
        world = replace(self.world, network=network, rows=rows)
        history = self.world.users.get(user, np.empty(0, np.int64))
        return world.answer(history, candidates)

    def score(self, user: int = 3, **fields: object) -> httpx.Response:
        candidates = self.world.ids[:20].tolist()
        body = {"user_id": user, "candidates": candidates, **fields}
        return self.client.post("/v1/score", json=body)

    def serves(self, version: str, user: int = 3, **fields: object) -> None:
        """Its answers are that version's, by name, by header and by number."""
        answer = self.score(user, **fields)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model_version"] == version
        assert answer.headers["X-Model-Version"] == version
        expected = self.answer(version, user, self.world.ids[:20])
        assert answer.json()["scores"] == pytest.approx(expected, abs=TOLERANCE)

    def tell(self, path: str, **body: object) -> httpx.Response:
        return self.admin.post(f"/admin/models/{path}", json=body or None)

    def state(self, version: str) -> str:
        return str(self.admin.get(f"/admin/models/{version}").json()["state"])

    def begin(self) -> None:
        """As at the start: ``small-1`` serves, ``small-2`` is not loaded, there is no other."""
        shown = self.admin.get("/admin/models").json()
        for share in ("canary", "shadow"):
            if shown[share]:
                assert self.tell(f"{shown[share]['version']}/{share}", share=0).status_code == 200
        for version in ("small-2", "small-1"):
            assert self.tell(f"{version}/activate").status_code == 200
        for version in {model["version"] for model in shown["models"]} - {"small-1"}:
            assert self.tell(f"{version}/unload").status_code == 200
        for folder in self.world.models.iterdir():
            if folder.name not in self.networks:
                shutil.rmtree(folder)

    def metric(self, name: str) -> float:
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0


def two_versions(folder) -> tuple[World, dict[str, QIN]]:  # type: ignore[no-untyped-def]
    """``small-1``, and ``small-2``, which is newer and answers otherwise."""
    world = make_world(folder)
    other, bundle = random_published(SMALL, SMALL_SIZES, 99, world.models, "small-2")
    assert bundle.manifest.created > world.bundle.manifest.created  # both are built but once
    return world, {"small-1": world.network, "small-2": other}


@pytest.fixture(scope="module")
def shared_swapping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapping]:
    world, networks = two_versions(tmp_path_factory.mktemp("swapping"))
    yield from running(world, networks)


@pytest.fixture
def swapping(shared_swapping: Swapping) -> Swapping:
    """Begins with ``small-1``; follows nothing by itself. A module's tests share the service."""
    shared_swapping.begin()
    return shared_swapping


def running(world: World, networks: dict[str, QIN], **variables: str) -> Iterator[Swapping]:
    patient = {"QIN_INSPECTION_S": "5", "QIN_DEADLINE_MS": PATIENCE_MS}
    chosen = {"QIN_MODEL_POLICY": "manual", **patient, **variables}
    with (
        serving(world.models, world.store, **chosen) as service,
        service.client() as client,
        service.admin() as admin,
    ):
        swapping = Swapping(world, networks, service, client, admin)
        if "pin" not in chosen["QIN_MODEL_POLICY"]:
            assert swapping.tell("small-1/activate").status_code == 200
            assert swapping.tell("small-2/unload").status_code == 200
        yield swapping
