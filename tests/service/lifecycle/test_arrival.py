"""A bundle may arrive file by file, and what cannot be taken in is in the way of no other."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MANIFEST
from model_export.bundle.signature import PublicKeys, sign
from service.artifacts import arrival
from service.artifacts.arrival import SETTLED_S
from service.artifacts.importer import ImportPolicy, import_bundle
from service.artifacts.local_copies import LocalCopies
from service.artifacts.repository import ModelRepository
from service.errors import ModelRefused, StoreFailure
from service.lifecycle.startup import StartupVersions
from service.lifecycle.watcher import INCOMPLETE_AFTER_S, RepositoryWatcher
from service.observability.background import failures
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import two_versions
from tests.service.lifecycle.test_signed import new_key
from tests.service.process import Service, serving, start
from tests.service.world import World


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> World:
    return two_versions(tmp_path_factory.mktemp("arriving"))[0]


@pytest.fixture
def models(original: World, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original.models, tmp_path / "models"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``now`` of everything that measures how long nothing has changed."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(arrival, "monotonic", lambda: clock.now)
    monkeypatch.setattr("service.lifecycle.watcher.monotonic", lambda: clock.now)
    return clock


def newer(models: Path, version: str, seconds: float = 0, **fields: object) -> Path:
    """A whole bundle outside the folder, ``seconds`` newer than now."""
    folder = hostile.copied(models / "small-2", version, models.parent)
    created = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    hostile.change_manifest(folder, **{"created": created, **fields})
    return folder


class Activations:
    """A watcher over real folders; what it activates is taken in, and may be made to fail."""

    def __init__(self, models: Path, copies: LocalCopies) -> None:
        self.repository, self.copies = ModelRepository(models), copies
        self.tried: list[str] = []
        self.active = "small-2"
        self.failure: Exception | None = None
        self.policy = ImportPolicy(2**40)
        self.watcher = self.new()

    def new(self) -> RepositoryWatcher:
        return RepositoryWatcher(
            self.repository, self.copies.state, self.activate, 0.01, active=lambda: self.active
        )

    async def activate(self, version: str, kind: str) -> None:
        self.tried.append(version)
        try:
            if self.failure is not None:
                raise self.failure
            import_bundle(self.repository.models / version, self.copies, self.policy)
        except Exception as error:
            raise ModelRefused(str(error)) from error
        self.active = version

    async def look(self) -> list[str]:
        """Once; what was tried."""
        self.tried = []
        for found in self.watcher._look():
            if await self.watcher._try(found):
                break
        return self.tried


@pytest.fixture
def following(models: Path, tmp_path: Path) -> Activations:
    copies = LocalCopies(tmp_path / "private", models)
    copies.prepare()
    copies.state.update(followed="small-2")
    return Activations(models, copies)


async def test_a_bundle_that_arrives_file_by_file_is_followed_when_it_is_whole(
    models: Path, following: Activations, clock: SimpleNamespace
) -> None:
    """As rsync writes it: each file under another name first, the manifest where it sorts."""
    source, target = newer(models, "small-3"), models / "small-3"
    target.mkdir()
    for name in sorted(os.listdir(source)):
        assert await following.look() == []
        partial = target / f".{name}.Xa2bQ1"
        partial.write_bytes((source / name).read_bytes())
        assert await following.look() == []
        partial.rename(target / name)
        clock.now += 10 * SETTLED_S  # a slow network is no fault
    assert await following.look() == ["small-3"]
    assert following.active == "small-3"


async def test_a_manifest_that_comes_last_or_first_grows_and_is_waited_for(
    models: Path, following: Activations, clock: SimpleNamespace
) -> None:
    for version, order in (("last", 1), ("first", -1)):
        source, target = newer(models, version, seconds=2 - order), models / version
        target.mkdir()
        for name in sorted(os.listdir(source), key=lambda n: n == MANIFEST)[::order]:
            content = (source / name).read_bytes()
            for part in (len(content) // 2, len(content)):
                (target / name).write_bytes(content[:part])
                whole = len(os.listdir(target)) == len(os.listdir(source))
                if whole and part == len(content):
                    break
                assert await following.look() == []
                found = following.repository.versions()[version]
                assert found.arriving
                assert found.version == version
                clock.now += SETTLED_S
        assert await following.look() == [version]


async def test_files_written_in_place_at_their_full_size_are_waited_for(
    models: Path, following: Activations, clock: SimpleNamespace
) -> None:
    folder = newer(models, "in-place").rename(models / "in-place")
    whole = (folder / "ranker.weights").read_bytes()
    (folder / "ranker.weights").write_bytes(bytes(len(whole)))
    for _ in range(3):
        assert await following.look() == []
        clock.now += SETTLED_S - 1
        with (folder / "ranker.weights").open("r+b") as stream:
            stream.write(whole[: len(whole) // 2])
    assert await following.look() == []
    (folder / "ranker.weights").write_bytes(whole)
    assert await following.look() == ["in-place"]


async def test_what_stays_wrong_is_refused_once_and_tried_again_when_it_changes(
    models: Path, following: Activations, clock: SimpleNamespace
) -> None:
    folder = newer(models, "wrong").rename(models / "wrong")
    whole = (folder / "ranker.weights").read_bytes()
    hostile.flip_a_bit(folder)
    assert await following.look() == []
    clock.now += SETTLED_S
    assert await following.look() == ["wrong"]
    for _ in range(3):
        clock.now += 3600
        assert await following.look() == []
    assert following.watcher.left_aside == 1
    (folder / "ranker.weights").write_bytes(whole)
    assert await following.look() == ["wrong"]
    assert following.active == "wrong"
    assert following.watcher.left_aside == 0


async def test_what_stays_incomplete_is_told_once_and_followed_all_the_same(
    models: Path,
    following: Activations,
    clock: SimpleNamespace,
) -> None:
    folder = newer(models, "slow").rename(models / "slow")
    golden = (folder / "golden.npz").rename(models.parent / "golden.npz")
    with capture_logs() as logs:
        for _ in range(5):
            assert await following.look() == []
            clock.now += INCOMPLETE_AFTER_S
    said = [(line["event"], line["reason"]) for line in logs]
    assert said[0] == ("arriving", "golden.npz is missing")
    assert said[1][0] == "incomplete"
    assert said[1][1].startswith("golden.npz is missing; nothing has changed for ")
    assert f"copy the bundle to {folder} again, or remove" in said[1][1]
    assert [line["log_level"] for line in logs] == ["info", "warning"]
    assert len(said) == 2
    golden.rename(folder / "golden.npz")
    assert await following.look() == ["slow"]


async def test_a_models_folder_that_cannot_be_followed_is_told_once_and_counted(
    models: Path, following: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, before = following.watcher, failures()["model_follow"]
    newer(models, "later").rename(models / "later")
    os.rename(models, models.with_name("aside"))
    os.symlink(models, models)  # a loop, which no user can read
    monkeypatch.setattr(watcher, "_every_s", 0.001)
    with capture_logs() as logs:
        task = asyncio.create_task(watcher.follow(lambda: True))
        async with asyncio.timeout(30):
            while failures()["model_follow"] < before + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            os.unlink(models)
            os.rename(models.with_name("aside"), models)
            while following.active != "later":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        task.cancel()
    (line,) = [line for line in logs if "cannot be read" in str(line)]
    assert f"{models}: cannot be read" in line["reason"]
    assert "exc_info" not in line


FUTURE = "9998-01-01T00:00:00Z"


async def test_what_is_dated_in_the_future_is_left_aside_and_looked_at_again(
    models: Path, following: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer(models, "tomorrow", seconds=360).rename(models / "tomorrow")
    newer(models, "soon", seconds=240).rename(models / "soon")
    assert await following.look() == ["soon"]
    assert await following.look() == []
    monkeypatch.setattr(arrival, "MOST_AHEAD", timedelta(days=1))  # as if a day had gone by
    assert await following.look() == ["tomorrow"]


@pytest.mark.parametrize(
    ("damage", "tried"),
    [
        (lambda f: hostile.change_manifest(f, created=FUTURE), False),
        (lambda f: hostile.change_manifest(f, created="9999-12-31T23:59:59-23:59"), False),
        (lambda f: hostile.change_manifest(f, created=1e300), False),
        (lambda f: hostile.change_manifest(f, created="2027-01-01T00:00:00"), False),
        (hostile.be_of_the_next_format, False),
        (lambda f: os.truncate(f / MANIFEST, 1_500_000_000), False),
        (lambda f: ((f / MANIFEST).unlink(), os.mkfifo(f / MANIFEST)), False),
        (lambda f: ((f / MANIFEST).unlink(), (f / MANIFEST).symlink_to("/dev/zero")), False),
        (lambda f: ((f / MANIFEST).unlink(), (f / MANIFEST).mkdir()), False),
        (hostile.lose_the_golden_file, False),
        (hostile.be_a_symbolic_link, False),
        (hostile.hold_a_named_pipe, False),
        (hostile.be_a_hard_link, True),
        (lambda f: shutil.rmtree(f) or f.symlink_to(f.parent / "small-1"), False),
        (lambda f: [(f / f"x{i}").touch() for i in range(1001)], False),
    ],
)
async def test_what_cannot_be_taken_in_hides_nothing(
    models: Path,
    following: Activations,
    damage: Callable[[Path], object],
    tried: bool,
    clock: SimpleNamespace,
) -> None:
    """Neither before the good one is there, nor after, nor at the next start."""
    bad = newer(models, "small-9", seconds=60).rename(models / "small-9")
    damage(bad)
    assert await following.look() == ["small-9"] * tried
    clock.now += SETTLED_S
    await following.look()
    newer(models, "good", seconds=1).rename(models / "good")
    assert await following.look() == ["good"]
    newer(models, "better", seconds=2).rename(models / "better")
    assert await following.look() == ["better"]
    following.watcher = following.new()
    newer(models, "best", seconds=3).rename(models / "best")
    assert (await following.look())[-1] == "best"
    startup = StartupVersions(following.repository, following.copies, ImportPolicy(2**40))
    assert startup.next().copy.version == "best"


@pytest.mark.parametrize("target", ["circle", "small-2/manifest.json", "nowhere"])
def test_a_link_that_leads_to_no_folder_hides_no_version(models: Path, target: str) -> None:
    (models / "circle").symlink_to(target)
    assert sorted(ModelRepository(models).versions()) == ["small-1", "small-2"]
    assert ModelRepository(models).newest().version == "small-2"


@pytest.mark.parametrize(
    "said",
    [{"format": "9" * 500_000}, {"x" * 500_000: 1}, {"files": {"x" * 500_000: 1}}],
    ids=["format", "field", "file"],
)
def test_a_refusal_is_short_however_long_what_a_manifest_says(
    models: Path, said: dict[str, object]
) -> None:
    hostile.change_manifest(models / "small-2", **said)
    found = ModelRepository(models).versions()["small-2"]
    assert found.fault is not None
    assert str(models) in found.fault
    assert len(found.fault) < 1000


def test_a_folder_of_very_many_versions_is_read_within_bounds(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last ones by name, as default versions are times."""
    for number in range(7):
        (models / f"2026-{number}").mkdir()
        (models / f"2026-{number}" / "golden.npz").touch()
    monkeypatch.setattr("service.artifacts.repository.MOST_VERSIONS", 4)
    found = ModelRepository(models)
    assert sorted(found.versions()) == ["2026-5", "2026-6", "small-1", "small-2"]
    assert found.newest().version == "small-2"
    assert found.folder("2026-1") is None


async def test_an_unsigned_bundle_hides_no_signed_one(
    models: Path, following: Activations, tmp_path: Path
) -> None:
    key, public = new_key(tmp_path, "ours")
    (tmp_path / "ours.pub").write_bytes(public)
    following.policy = ImportPolicy(2**40, PublicKeys.read(tmp_path / "ours.pub"))
    newer(models, "unsigned", 250).rename(models / "unsigned")
    newer(models, "far", created=FUTURE).rename(models / "far")
    assert await following.look() == ["unsigned"]
    for version in ("signed-1", "signed-2"):
        folder = newer(models, version, seconds=int(version[-1]))
        sign(folder, key)
        folder.rename(models / version)
        assert await following.look() == [version]
    startup = StartupVersions(following.repository, following.copies, following.policy)
    assert startup.next().copy.version == "signed-2"


async def test_without_room_or_store_a_version_is_tried_again_later(
    models: Path, following: Activations, clock: SimpleNamespace
) -> None:
    newer(models, "small-3").rename(models / "small-3")
    following.failure = StoreFailure("away")
    assert await following.look() == ["small-3"]
    waits = []
    for _ in range(3):
        waited = 0
        while not await following.look():
            clock.now += 30
            waited += 30
        waits.append(waited)
    assert waits == [60, 120, 240]
    following.failure = None
    clock.now += 3600
    assert await following.look() == ["small-3"]


async def test_a_version_followed_before_the_last_release_is_not_followed_again(
    models: Path, tmp_path: Path
) -> None:
    """``state.json`` of a release that kept its name alone; and one that it had failed at."""
    copies = LocalCopies(tmp_path / "private", models)
    copies.prepare()
    (copies.path / "state.json").write_bytes(b'{"followed": "small-2", "interrupted": null}')
    assert await Activations(models, copies).look() == []
    hostile.change_manifest(
        hostile.copied(models / "small-2", "small-8"), created=FUTURE, version="small-8"
    )
    (copies.path / "state.json").write_bytes(b'{"followed": "small-8"}')
    newer(models, "small-3").rename(models / "small-3")
    assert await Activations(models, copies).look() == ["small-3"]


def test_a_rollback_stays_although_the_folder_of_what_was_followed_is_gone(
    models: Path, following: Activations
) -> None:
    copies = following.copies
    found = following.repository.versions()["small-2"]
    copies.state.update(followed="small-2", followed_created=found.created)
    shutil.rmtree(models / "small-2")
    following.active = "small-1"
    assert following.new()._look() == []


def test_a_service_begins_with_the_newest_that_can_be_taken_in(
    models: Path, following: Activations
) -> None:
    copies = LocalCopies(models.parent / "other", models)
    copies.prepare()
    newer(models, "half").rename(models / "half")
    hostile.truncate(models / "half")
    hostile.flip_a_bit(newer(models, "damaged", 1).rename(models / "damaged"))
    newer(models, "future", 10_000).rename(models / "future")
    hostile.flip_a_bit(newer(models, "older", -1e9).rename(models / "older"))
    startup = StartupVersions(ModelRepository(models), copies, ImportPolicy(2**40))
    assert startup.next().copy.version == "small-2"
    assert startup.passed_over.keys() == {"half", "damaged", "future"}
    assert "ranker.weights: sha-256" in startup.passed_over["damaged"]
    assert "of" in startup.passed_over["half"]
    startup.pass_over("small-2", "its graphs fail")
    assert startup.next().copy.version == "small-1"
    with pytest.raises(BundleError, match=r"in the future .* 4 more: see the log"):
        startup.next()


@pytest.mark.parametrize("lost", [["small-2"], ["small-2", "small-1"]])
def test_what_was_active_and_is_lost_is_passed_over(
    models: Path, following: Activations, lost: list[str]
) -> None:
    copies = following.copies
    imported = {
        n: import_bundle(models / n, copies, ImportPolicy(2**40)).copy
        for n in ("small-1", "small-2")
    }
    copies.state.update(active=imported["small-2"], previous=imported["small-1"])
    newer(models, "small-3", -1e9).rename(models / "small-3")
    for name in lost:
        copies.discard(imported[name])
        shutil.rmtree(models / name)
    startup = StartupVersions(ModelRepository(models), copies, ImportPolicy(2**40))
    assert startup.next().copy.version == ("small-3" if len(lost) == 2 else "small-1")
    assert set(startup.passed_over) == set(lost)


def until(true: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listed(service: Service) -> dict[str, dict[str, str]]:
    with service.admin() as admin:
        return {m["version"]: m for m in admin.get("/admin/models").json()["models"]}


def test_a_service_starts_beside_bad_bundles_and_follows_what_arrives(
    original: World, models: Path
) -> None:
    """The newest has digests that fit, and answers otherwise than its network: only loading it
    tells."""
    hostile.change_a_golden_answer(newer(models, "unproved").rename(models / "unproved"))
    newer(models, "naive", created="2026-11-21T09:30:00").rename(models / "naive")
    os.truncate(newer(models, "sparse").rename(models / "sparse") / MANIFEST, 1_500_000_000)
    hostile.truncate(newer(models, "half", 1).rename(models / "half"))
    newer(models, "future", created=FUTURE).rename(models / "future")
    with (
        serving(models, original.store, QIN_FOLLOW_EVERY_S="0.1") as service,
        service.client() as client,
    ):
        ready = client.get("/readyz").json()
        assert ready["model_version"] == "small-2"
        assert set(ready["passed_over"]) == {"unproved", "naive", "sparse", "half", "future"}
        states = listed(service)
        assert states["unproved"]["state"] == "failed"
        assert "golden answers: " in states["unproved"]["reason"]
        assert states["half"]["state"] == "arriving"
        assert "ranker.weights: " in states["half"]["reason"]
        assert "has no time zone" in states["naive"]["reason"]
        assert "at most 1,048,576" in states["sparse"]["reason"]
        assert "in the future by this host's clock" in states["future"]["reason"]

        source, target = newer(models, "small-3", 2), models / "small-3"
        target.mkdir()
        for name in sorted(os.listdir(source)):
            if name != "ranker.weights":
                shutil.copy(source / name, target / f".{name}.Xa2")
                (target / f".{name}.Xa2").rename(target / name)
        until(lambda: "small-3" in listed(service))
        assert listed(service)["small-3"]["reason"].startswith("ranker.weights is missing")
        assert listed(service)["small-3"]["state"] == "arriving"
        until(lambda: "qin_models_left_aside 6.0" in client.get("/metrics").text)
        shutil.copy(source / "ranker.weights", target / "ranker.weights")
        until(lambda: client.get("/readyz").json()["model_version"] == "small-3")
        lacking = newer(models, "small-4", 3)
        hostile.rename_a_feature(lacking)
        lacking.rename(models / "small-4")
        until(lambda: listed(service).get("small-4", {}).get("state") == "failed")
        newer(models, "small-5", 4).rename(models / "small-5")
        until(lambda: client.get("/readyz").json()["model_version"] == "small-5")
        log = service.log.read_text()
        (refused,) = (line for line in log.splitlines() if "loves_level" in line)
        assert "model refused" in refused
        assert log.count('"not followed"') <= 2  # once each, of what cannot be read
        assert "passed over at start" in log
        assert "Traceback" not in log


def test_a_service_told_which_one_to_serve_does_not_serve_another(
    original: World, models: Path
) -> None:
    hostile.truncate(models / "small-2")
    options = ("--bundle", str(models), "--store", original.store)
    ended = start(*options, QIN_MODEL_POLICY="pin:small-2")
    assert ended.process.wait(60) == 1
    assert "bytes, and the manifest says" in ended.log.read_text()
    ended.remove()


def test_of_bundles_with_one_date_a_start_takes_what_a_load_without_a_version_takes(
    models: Path, tmp_path: Path
) -> None:
    created = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for folder in models.iterdir():
        hostile.change_manifest(folder, created=created)
    repository, copies = ModelRepository(models), LocalCopies(tmp_path / "copies", models)
    copies.prepare()
    startup = StartupVersions(repository, copies, ImportPolicy(2**40))
    assert startup.next().copy.version == repository.newest().version == "small-2"
