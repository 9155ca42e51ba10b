"""What a service begins with, and what it does by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.service.in_process import opened
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import Service, serving, start, wait_ready
from tests.service.world import World


def until(true: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def active(service: Service) -> str:
    with service.client() as client:
        return str(client.get("/readyz").json()["model_version"])


def states(service: Service) -> dict[str, str]:
    with service.admin() as admin:
        models = admin.get("/admin/models").json()["models"]
    return {model["version"]: model["state"] for model in models}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return two_versions(tmp_path / "world")[0]


def test_a_new_service_begins_with_the_newest(world: World) -> None:
    with serving(world.models, world.store) as service:
        assert active(service) == "small-2"


def test_a_restart_serves_what_was_active_last(world: World, tmp_path: Path) -> None:
    private = str(tmp_path / "private")
    with (
        serving(world.models, world.store, QIN_PRIVATE=private) as service,
        service.admin() as admin,
    ):
        assert admin.post("/admin/models/small-1/activate").status_code == 200
    with serving(world.models, world.store, QIN_PRIVATE=private) as service:
        assert active(service) == "small-1"


def not_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\0")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_named_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def names_no_copy(file: Path) -> None:
    file.write_text('{"active": {"version": "a\\u0000b", "digest": "../.."}}')


def half_removed(file: Path) -> None:
    """The copy's folder is gone, and what lay beside it is not."""
    shutil.rmtree(file.parent / "small-2")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("proved", half_removed),
        ("state.json", names_no_copy),
        ("proved", not_text),
        ("proved", a_named_pipe),
        ("state.json", not_text),
        ("state.json", a_named_pipe),
        ("versions.json", not_text),
        ("lock", a_folder),
    ],
)
async def test_a_damaged_file_of_the_private_place_keeps_nothing_from_being_served(
    world: World, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    private = tmp_path / "private"
    async with opened(world, private=private) as state:
        assert state.registry.active is not None
    [file] = private.rglob(name)
    damage(file)
    async with asyncio.timeout(60), opened(world, private=private) as state:
        assert state.registry.active is not None
        assert state.registry.active.name == "small-2"


def test_killed_in_the_middle_of_a_load_it_serves_what_was_active_last(
    world: World, tmp_path: Path
) -> None:
    publish(world, "endless", hostile.loop_for_ever)
    private = str(tmp_path / "private")
    variables = {"QIN_PRIVATE": private, "QIN_INSPECTION_S": "60", "QIN_FOLLOW_EVERY_S": "0.1"}
    options = ("--bundle", str(world.models), "--store", world.store)
    first = start(*options, **variables, QIN_MODEL_POLICY="pin:small-1")
    wait_ready(first)
    assert first.stop() == 0
    second = start(*options, **variables)
    wait_ready(second)
    assert active(second) == "small-1"
    until(lambda: states(second)["endless"] == "loading")
    time.sleep(0.5)  # its child is at work
    second.process.send_signal(signal.SIGKILL)
    second.process.wait()
    until(lambda: not _is_running("service.artifacts.sandbox_child", str(tmp_path)), 10)
    third = start(*options, **variables)
    wait_ready(third)
    assert active(third) == "small-1"
    time.sleep(1.0)
    assert states(third)["endless"] == "available"  # once was enough
    assert third.stop() == 0
    for ended in (first, second, third):
        ended.remove()


def test_a_killed_service_leaves_half_copies_that_the_next_removes(
    world: World, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    with serving(world.models, world.store, QIN_PRIVATE=str(private)):
        pass
    left = next(private.glob("models-*")) / "incoming"
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    (left / f"{host}.999999999.abcd" / "small-9").mkdir(parents=True)
    with serving(world.models, world.store, QIN_PRIVATE=str(private)):
        assert list(left.iterdir()) == []


def test_what_is_published_is_followed_and_what_is_bad_is_not(world: World) -> None:
    with (
        serving(world.models, world.store, QIN_FOLLOW_EVERY_S="0.1") as service,
        service.admin() as admin,
    ):
        assert admin.post("/admin/models/small-1/activate").status_code == 200
        time.sleep(0.5)
        assert active(service) == "small-1"  # by hand, and so it stays
        bad = publish(world, "bad", hostile.flip_a_bit)
        until(lambda: states(service)[bad] == "failed")
        assert active(service) == "small-1"
        good = publish(world, "good")
        until(lambda: active(service) == good)
        assert admin.post("/admin/models/rollback").json()["active"] == "small-1"
        time.sleep(0.5)
        assert active(service) == "small-1"


def publish(world: World, version: str, damage: hostile.Damage | None = None) -> str:
    """The newest there is, appearing whole."""
    hidden = hostile.copied(world.models / "small-2", version, world.models.parent)
    created = datetime.now(UTC) + timedelta(seconds=version == "good")
    hostile.change_manifest(hidden, created=created.isoformat())
    if damage is not None:
        damage(hidden)
    hidden.rename(world.models / version)
    return version


def test_a_pinned_version_is_served_and_no_other(world: World) -> None:
    with (
        serving(
            world.models, world.store, QIN_MODEL_POLICY="pin:small-1", QIN_FOLLOW_EVERY_S="0.1"
        ) as service,
        service.admin() as admin,
    ):
        time.sleep(0.5)
        assert active(service) == "small-1"
        refused = admin.post("/admin/models/small-2/activate")
        assert refused.status_code == 409
        assert "pinned" in refused.json()["detail"]


def test_a_pinned_version_that_is_not_there_ends_the_start(world: World) -> None:
    options = ("--bundle", str(world.models), "--store", world.store)
    ended = start(*options, QIN_MODEL_POLICY="pin:small-7")
    assert ended.process.wait(30) == 1
    assert "small-7: not found" in ended.log.read_text()
    ended.remove()


def _is_running(*words: str) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words):
            return True
    return False
