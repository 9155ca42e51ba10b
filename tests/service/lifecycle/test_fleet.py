"""Processes of one store: told once, they all follow, each in its turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.feature_store.redis_servers import Server
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import Service, serving
from tests.service.world import World, on_another_store

SETTINGS = {"QIN_MODEL_POLICY": "manual", "QIN_STORE_TIMEOUT_MS": "5000", "QIN_THREADS": "1"}


def until(true: Callable[[], bool], within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    made, _ = two_versions(tmp_path_factory.mktemp("fleet"))
    if request.param == "lmdb":
        return made
    server: Server = request.getfixturevalue("redis")
    return on_another_store(made, f"redis://127.0.0.1:{server.port}?prefix=t{uuid4().hex}")


@pytest.fixture(scope="module")
def fleet(world: World) -> Iterator[list[Service]]:
    """Three of them, each with its own private folder, as on three machines."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(serving(world.models, world.store, **SETTINGS)) for _ in range(3)
        ]


def active(service: Service) -> str:
    with service.client() as client:
        return str(client.get("/readyz").json()["model_version"])


def tell(service: Service, path: str, **body: object) -> httpx.Response:
    with service.admin() as admin:
        return admin.post(f"/admin/models/{path}", json=body or None)


def look(service: Service) -> dict:  # type: ignore[type-arg]
    with service.admin() as admin:
        content: dict = admin.get("/admin/models").json()  # type: ignore[type-arg]
        return content


def all_serve(fleet: list[Service], version: str) -> None:
    until(lambda: {active(service) for service in fleet} == {version})


def test_one_call_reaches_every_process(fleet: list[Service]) -> None:
    assert tell(fleet[0], "small-2/activate").status_code == 200  # as it is already, or again
    all_serve(fleet, "small-2")
    until(lambda: len(look(fleet[0])["processes"]) == 3)
    assert tell(fleet[1], "small-1/activate").status_code == 200
    all_serve(fleet, "small-1")
    until(lambda: {p["active"] for p in look(fleet[2])["processes"]} == {"small-1"})
    assert tell(fleet[2], "rollback").json()["active"] == "small-2"
    all_serve(fleet, "small-2")
    # Nobody goes on rolling: what the others did was obeying.
    time.sleep(1.5)
    all_serve(fleet, "small-2")
    assert tell(fleet[0], "rollback").status_code == 409 or active(fleet[0]) == "small-2"


def test_a_canary_is_the_same_users_canary_everywhere(fleet: list[Service]) -> None:
    other = "small-1" if active(fleet[0]) == "small-2" else "small-2"
    assert tell(fleet[0], f"{other}/canary", share=0.4).status_code == 200
    until(lambda: all(look(service)["canary"] for service in fleet))
    answered = []
    for service in fleet:
        with service.client() as client:
            answered.append(
                [
                    client.post("/v1/score", json={"user_id": u, "candidates": [1]}).json()[
                        "model_version"
                    ]
                    for u in range(30)
                ]
            )
    assert answered[0] == answered[1] == answered[2]
    assert set(answered[0]) == {"small-1", "small-2"}
    assert tell(fleet[1], f"{other}/canary", share=0).status_code == 200
    until(lambda: not any(look(service)["canary"] for service in fleet))


def test_a_bad_version_goes_no_further_than_the_process_that_was_told(
    fleet: list[Service], world: World
) -> None:
    before = active(fleet[0])
    if not (world.models / "bad").exists():
        hostile.flip_a_bit(hostile.copied(world.models / "small-2", "bad"))
    assert tell(fleet[0], "bad/activate").status_code == 422
    time.sleep(1.5)
    assert {active(service) for service in fleet} == {before}
    assert {m["state"] for m in look(fleet[1])["models"] if m["version"] == "bad"} == {"available"}


def test_loads_take_turns(fleet: list[Service], world: World) -> None:
    new = f"new-{uuid4().hex[:8]}"
    hostile.copied(world.models / "small-2", new)
    assert tell(fleet[0], f"{new}/activate").status_code == 200
    all_serve(fleet, new)
    spans = []
    for service in fleet[1:]:
        lines = service.log.read_text().splitlines()
        spans.append(
            (
                next(_at(line) for line in lines if "inspected" in line and f'"{new}"' in line),
                next(_at(line) for line in lines if '"switched"' in line and f'"{new}"' in line),
            )
        )
    first, second = sorted(spans)
    assert first[1] <= second[0]


def test_a_late_starter_begins_with_what_the_fleet_serves(
    fleet: list[Service], world: World
) -> None:
    assert tell(fleet[0], "small-1/activate").status_code == 200
    with serving(world.models, world.store, **SETTINGS) as late:
        assert active(late) == "small-1"
        assert '"model_version":"small-2"' not in late.log.read_text()
        all_serve([*fleet, late], "small-1")
        until(lambda: len(look(fleet[0])["processes"]) == 4)
    until(lambda: len(look(fleet[0])["processes"]) == 3)  # it signed off


def test_a_process_that_cannot_says_so_and_goes_on(
    fleet: list[Service], world: World, tmp_path: Path
) -> None:
    """Its folder has other versions than the fleet's."""
    assert tell(fleet[0], "small-1/activate").status_code == 200
    all_serve(fleet, "small-1")
    alone = tmp_path / "models"
    alone.mkdir()
    hostile.shutil.copytree(world.models / "small-1", alone / "small-1")
    with serving(alone, world.store, **SETTINGS) as poor:
        assert tell(fleet[0], "small-2/activate").status_code == 200
        all_serve(fleet, "small-2")
        until(lambda: "'small-2': not in" in str(report(fleet[0], poor)["fault"]))
        assert report(fleet[0], poor)["active"] == "small-1"
        assert active(poor) == "small-1"


def report(asked: Service, about: Service) -> dict:  # type: ignore[type-arg]
    processes = look(asked)["processes"]
    return next((p for p in processes if p["pid"] == about.process.pid), {"fault": None})


def _at(line: str) -> str:
    return line.partition('"timestamp":"')[2].partition('"')[0]
