"""A process is known by more than its number, and its notes are checked before they are obeyed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.artifacts import owner
from service.artifacts.importer import ImportPolicy, import_bundle
from service.artifacts.local_copies import LocalCopies
from service.artifacts.owner import Owner, boot_id, started
from service.artifacts.persisted_state import Copy, Loading
from service.artifacts.repository import ModelRepository
from service.lifecycle import fleet_notes
from service.lifecycle.fleet import Fleet
from service.lifecycle.fleet_notes import (
    GONE_AFTER_S,
    MOST_BYTES,
    DesiredState,
    LivenessTracker,
    Notes,
    Report,
    mark_of_this_process,
)
from service.lifecycle.startup import StartupVersions
from tests.feature_store.redis_servers import Server
from tests.service.in_process import opened
from tests.service.world import World, on_another_store

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def ended() -> int:
    """The number of a process that has just ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def copies(tmp_path: Path, world: World) -> LocalCopies:
    folder = LocalCopies(tmp_path / "private", world.models)
    folder.prepare()
    return folder


def test_a_process_runs_until_it_ends_also_unburied(ended: int) -> None:
    me = Owner.this_process()
    assert me.is_here
    assert me.runs
    assert not replace(me, pid=ended).runs
    child = subprocess.Popen([sys.executable, "-c", ""])
    while started(child.pid) is not None:  # until it is a zombie
        time.sleep(0.01)
    assert Path(f"/proc/{child.pid}").exists()
    child.wait()


def test_another_process_with_its_number_is_not_taken_for_it() -> None:
    """As in a container, where the first process is always number 1."""
    me = Owner.this_process()
    assert me.started is not None
    assert not replace(me, started=me.started - 1).runs
    assert not replace(me, boot=OTHER_BOOT).runs


def test_a_name_may_hold_anything_and_the_start_is_still_read() -> None:
    script = "import sys; sys.stdin.read()"
    child = subprocess.Popen(
        ["bash", "-c", f'exec -a "x) Z 1 (" {sys.executable} -c "{script}"'], stdin=subprocess.PIPE
    )
    path = Path(f"/proc/{child.pid}/comm")
    try:
        assert started(child.pid) is not None, path
    finally:
        child.communicate()


hosts = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
numbers = st.integers(0, 2**40)


@settings(max_examples=50)
@given(hosts, numbers, numbers, st.uuids(), st.integers(0, 2**32 - 1))
def test_an_owner_is_read_back_from_its_name(
    host: str, pid: int, began: int, boot: Any, random: int
) -> None:
    one = Owner(host, pid, str(boot), began)
    assert Owner.of_name(one.name(f"{random:08x}")) == one


def test_names_of_earlier_releases_are_read() -> None:
    assert Owner.of_name("a.host.1234.0a1b2c3d") == Owner("a.host", 1234)
    assert Owner.of_name("nonsense") is None


def test_what_a_restarted_container_left_half_copied_is_removed(copies: LocalCopies) -> None:
    me = Owner.this_process()
    assert me.started is not None
    incoming = copies.path / "incoming"
    left = [
        replace(me, started=me.started - 7).name("aa"),
        replace(me, boot=OTHER_BOOT).name("bb"),
        f"{me.host}.999999999.cc",
    ]
    kept = [me.name("dd"), f"{me.host}.{os.getpid()}.ee", replace(me, host="another").name("ff")]
    for name in (*left, *kept):
        (incoming / name / "small-9").mkdir(parents=True)
    copies.prepare()
    assert sorted(folder.name for folder in incoming.iterdir()) == sorted(kept)


def test_files_of_another_host_are_old_by_the_clock_of_their_file_system(
    copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e12)  # this host's clock is far ahead
    young, old = (copies.path / "incoming" / f"another.1.{n}" for n in ("aa", "bb"))
    for folder in (young, old):
        folder.mkdir()
    os.utime(old, (1.0, 1.0))
    copies.prepare()
    assert young.exists()
    assert not old.exists()


@pytest.mark.parametrize(
    ("changed", "interrupted"),
    [
        ({}, False),
        ({"started": 1}, True),
        ({"boot": OTHER_BOOT}, True),
        ({"host": "another", "started": 1}, False),
        ({"boot": None, "started": None}, False),  # of an earlier release: its number is in use
        ({"boot": None, "started": None, "pid": 999_999_999}, True),
    ],
)
def test_a_load_is_interrupted_when_its_very_process_is_gone(
    copies: LocalCopies, world: World, changed: dict[str, Any], interrupted: bool
) -> None:
    copy = import_bundle(world.bundle.path, copies, ImportPolicy(2**40)).copy
    loading = Loading.by_this_process(copy).model_copy(update=changed)
    copies.state.update(loading=loading)
    StartupVersions(ModelRepository(world.models), copies, ImportPolicy(2**40)).next()
    assert (copies.state.read().interrupted == copy.version) is interrupted


def test_the_state_of_an_earlier_release_is_read(copies: LocalCopies) -> None:
    state = {
        "active": {"version": "a", "digest": "0" * 64},
        "previous": None,
        "loading": {"version": "b", "digest": "1" * 64, "host": "h", "pid": 3},
        "interrupted": "c",
        "followed": "a",
    }
    (copies.path / "state.json").write_bytes(orjson.dumps(state))
    found = copies.state.read()
    assert found.active == Copy(version="a", digest="0" * 64)
    assert found.loading == Loading(version="b", digest="1" * 64, host="h", pid=3)
    assert (found.interrupted, found.followed, found.followed_created) == ("c", "a", None)


GOOD = {"id": "1", "by": "p", "active": {"version": "small-1", "digest": "0" * 64}}
BAD = [
    b"",
    b"\xff",
    b"[]",
    b"null",
    b"[" * 60_000,
    b'{"id":"1","by":"p"}',
    orjson.dumps(GOOD | {"active": None}),
    orjson.dumps(GOOD | {"active": {"version": "small-1"}}),
    orjson.dumps(GOOD | {"active": {"version": "../x", "digest": "0" * 64}}),
    orjson.dumps(GOOD | {"active": {"version": "small-1", "digest": "0"}}),
    orjson.dumps(GOOD | {"active": {"version": "small-1", "digest": "0" * 64, "force": True}}),
    orjson.dumps(GOOD | {"id": 1}),
    orjson.dumps(GOOD | {"surprise": 1}),
    orjson.dumps(GOOD | {"loaded": "small-1"}),
    orjson.dumps(GOOD | {"loaded": ["v"] * 65}),
    orjson.dumps(GOOD | {"canary": {"version": "small-2", "share": 1.5}}),
    b'{"id":"1","by":"p","active":{"version":"a","digest":""},"canary":{"version":"b","share":NaN}}',
    orjson.dumps(GOOD) + b" " * MOST_BYTES,
]


@pytest.mark.parametrize("content", BAD)
def test_a_note_that_cannot_be_read_is_left_aside_and_told_once(content: bytes) -> None:
    notes = Notes(SimpleNamespace())  # type: ignore[arg-type]
    with capture_logs() as logs:
        for _ in range(3):
            assert notes.read("wanted", content, DesiredState) is None
    assert [line["event"] for line in logs] == ["fleet: note ignored"]
    assert len(logs[0]["reason"]) < 500
    assert notes.read("wanted", orjson.dumps(GOOD), DesiredState) is not None


async def test_a_fleet_goes_on_beside_notes_that_cannot_be_read(world: World) -> None:
    async with opened(world, fleet="notes", model_policy="manual") as state:
        await state.fleet.publish()
        for place, content in enumerate(BAD):
            await state.store.put_note(f"fleet/notes/process/{place + 1}", content)
        for content in BAD:
            await state.store.put_note("fleet/notes/wanted", content)
            assert await Fleet.wanted(state.settings) is None
        assert [report.pid for report in await state.fleet.reports()] in ([], [os.getpid()])
        for _ in range(1200):
            if await state.fleet.reports():
                break
            await asyncio.sleep(0.05)
        await state.fleet.publish()
        assert await Fleet.wanted(state.settings) == "small-1"


async def test_a_fleet_goes_on_beside_keys_of_another_kind_in_its_notes_places(
    world: World, redis: Server
) -> None:
    prefix = f"t{uuid4().hex}"
    url = f"redis://127.0.0.1:{redis.port}?prefix={prefix}"
    served = await asyncio.to_thread(on_another_store, world, url)
    client = redis.client()
    places = [f"{prefix}:note:fleet/notes/process/{place}" for place in (0, 3)]
    for key in (wanted := f"{prefix}:note:fleet/notes/wanted", *places):
        client.rpush(key, "of another program")
    async with opened(served, fleet="notes", model_policy="manual") as state:
        for _ in range(1200):
            if await state.fleet.reports():
                break
            await asyncio.sleep(0.05)
        assert state.fleet.leads()
        assert await Fleet.wanted(state.settings) is None
        await state.fleet.publish()
        assert client.type(wanted) == b"string"
        assert await Fleet.wanted(state.settings) == "small-1"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=5.0)
    monkeypatch.setattr(fleet_notes, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.parametrize("theirs", [0.0, 1e12])
def test_a_process_is_alive_while_its_report_changes_whatever_its_clock_says(
    clock: SimpleNamespace, theirs: float
) -> None:
    sightings, report = LivenessTracker(), Report(id="a", host="h", pid=1, at=theirs)
    for beat in range(5):
        assert sightings.is_alive(0, report.model_copy(update={"at": theirs - beat}))
        clock.now += GONE_AFTER_S - 1
    assert sightings.is_alive(0, report.model_copy(update={"at": theirs - 4}))
    clock.now += 1
    assert not sightings.is_alive(0, report.model_copy(update={"at": theirs - 4}))
    assert sightings.is_alive(0, report.model_copy(update={"id": "b"}))


def test_of_a_process_of_this_machine_it_is_known_at_once(
    clock: SimpleNamespace, ended: int
) -> None:
    mark = mark_of_this_process()
    here, _, began = mark.rpartition(":")
    mine = Report(id="a", host=socket.gethostname(), pid=os.getpid(), mark=mark)
    assert LivenessTracker().is_alive(0, mine)
    assert not LivenessTracker().is_alive(0, mine.model_copy(update={"pid": ended}))
    reused = mine.model_copy(update={"mark": f"{here}:{int(began) - 1}"})
    assert not LivenessTracker().is_alive(0, reused)
    elsewhere = mine.model_copy(update={"mark": f"{OTHER_BOOT}:pid:[1]:{began}", "pid": ended})
    assert LivenessTracker().is_alive(0, elsewhere)
    sightings = LivenessTracker()
    assert sightings.is_alive(0, mine)
    clock.now += 100 * GONE_AFTER_S  # it may be busy
    assert sightings.is_alive(0, mine)


def test_there_is_a_boot_id_here() -> None:
    assert boot_id()
    assert owner.started(os.getpid())
