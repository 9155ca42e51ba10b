"""The parts of a hot swap, each alone."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contract import MAX_ID
from model_export.bundle.errors import BundleError
from model_export.bundle.rank_correlation import kendall_tau
from service.artifacts import importer, sandbox
from service.artifacts.importer import ImportPolicy, import_bundle
from service.artifacts.local_copies import LocalCopies
from service.artifacts.sandbox import SandboxLimits
from service.engine.niceness import LOWEST
from service.errors import ModelFault, StoreFailure
from service.lifecycle.comparison import Comparison
from service.lifecycle.load_steps import RecentShapes
from service.lifecycle.rollback_monitor import Bounds, RollbackWindow
from service.models.loaded_model import LoadedModel
from service.models.registry import Canary, ModelRegistry, seed_of
from service.observability import memory
from service.observability.version_stats import VersionStats, shape_of
from tests.service.lifecycle import hostile
from tests.service.world import World

ids = st.integers(0, MAX_ID)


@given(ids, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_of_a_canary_only_adds_users(user: int, a: float, b: float) -> None:
    small, large = sorted((a, b))
    seed = seed_of("v2")
    if Canary(None, small, seed).takes(user):  # type: ignore[arg-type]
        assert Canary(None, large, seed).takes(user)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1.0])
def test_a_canary_takes_its_share_of_neighbouring_ids(share: float) -> None:
    canary = Canary(None, share, seed_of("v2"))  # type: ignore[arg-type]
    taken = sum(canary.takes(user) for user in range(20_000))
    assert abs(taken / 20_000 - share) < 0.006


def test_two_canaries_take_different_users() -> None:
    one, other = (Canary(None, 0.5, seed_of(name)) for name in ("v2", "v3"))  # type: ignore[arg-type]
    both = sum(one.takes(user) and other.takes(user) for user in range(10_000))
    assert abs(both / 10_000 - 0.25) < 0.02


scores = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]), min_size=2, max_size=12)


@given(st.data(), scores)
def test_kendall_tau_is_what_counting_pairs_gives(data: st.DataObject, a: list[float]) -> None:
    b = data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.7]), min_size=len(a), max_size=len(a)))
    pairs = list(itertools.combinations(range(len(a)), 2))
    x = [np.sign(a[i] - a[j]) for i, j in pairs]
    y = [np.sign(b[i] - b[j]) for i, j in pairs]
    scale = np.sqrt(sum(map(abs, x)) * sum(map(abs, y)))
    expected = sum(p * q for p, q in zip(x, y, strict=True)) / scale if scale else 1.0
    found = kendall_tau(np.array(a, np.float32), np.array(b, np.float32))
    assert found == pytest.approx(expected)


def tallied(*seconds: float, failures: int = 0, candidates: int = 20, history: int = 9) -> Any:
    one = SimpleNamespace(stats=VersionStats(), name="old")
    answer(one, *seconds, candidates=candidates, history=history)
    for _ in range(failures):
        one.stats.failed()
    return one


def answer(version: Any, *seconds: float, candidates: int = 20, history: int = 9) -> None:
    for one in seconds:
        version.stats.answered()
        version.stats.took(candidates, history, one)


BOUNDS = Bounds(window_s=60, error_rate=0.02, p99_ratio=2)


def test_a_version_as_good_as_the_one_before_is_kept() -> None:
    old, new = tallied(*[0.01] * 1000), tallied()
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[0.012] * 1000)
    for _ in range(4):
        new.stats.failed()
    assert watch.violation() is None
    assert watch.slowness() is None


def test_too_many_failures_are_a_violation_with_its_numbers() -> None:
    old, new = tallied(*[0.01] * 1000), tallied(*[0.01] * 5, failures=90)
    watch = RollbackWindow(new, old, BOUNDS)
    assert watch.violation() is None  # what it did before it was switched to does not count
    answer(new, *[0.01] * 95)
    for _ in range(5):
        new.stats.failed()
    assert watch.violation() == "5 of 100 answers failed (limit 2.00%)"


def test_a_slow_tail_is_seen_once_there_are_enough_answers() -> None:
    old, new = tallied(*[0.01] * 1000), tallied()
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *(0.05 if i % 20 == 0 else 0.01 for i in range(458)))
    assert watch.slowness() is None
    answer(new, 0.01)
    slowness = watch.slowness()
    assert slowness is not None
    assert slowness.reason.startswith("23 of 459 answers took longer ")
    assert slowness.reason.endswith("p99 50.0 ms (limit 20.0 ms)")
    assert slowness.shapes == ((24, 12),)


def test_without_a_usual_p99_slowness_is_not_judged() -> None:
    new = tallied()
    watch = RollbackWindow(new, tallied(*[0.01] * 99), BOUNDS)
    answer(new, *[5.0] * 1000)
    for _ in range(1000):
        new.stats.expired += 1
    assert watch.slowness() is None


@pytest.mark.parametrize(("candidates", "history"), [(5000, 9), (600, 9), (20, 60), (33, 0)])
@pytest.mark.parametrize("share", [0.02, 1.0])
def test_longer_lists_or_histories_than_before_are_no_slowness(
    candidates: int, history: int, share: float
) -> None:
    old, new = tallied(*[0.01] * 4000), tallied()
    answer(old, *[0.4] * 40, candidates=candidates, history=history)  # too few to judge by
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[0.5] * int(1000 * share), candidates=candidates, history=history)
    answer(new, *[0.01] * int(1000 * (1 - share)))
    assert watch.slowness() is None


def test_each_kind_of_request_is_held_against_its_own_p99() -> None:
    old, new = tallied(*[0.01] * 500), tallied()
    answer(old, *[0.2] * 200, candidates=5000)
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[0.1] * 100)  # five times what short ones took, half of what long ones did
    answer(new, *[0.2] * 900, candidates=5000)
    slowness = watch.slowness()
    assert slowness is not None
    assert slowness.shapes == ((24, 12),)


def test_deadlines_that_pass_more_often_than_before_are_seen() -> None:
    old, new = tallied(*[0.01] * 500), tallied()
    old.stats.expired = 5
    watch = RollbackWindow(new, old, BOUNDS)
    for count, seen in ((9, False), (11, False), (40, True)):
        new.stats.answers = 1000
        new.stats.expired = count
        assert (watch.slowness() is not None) is seen
    slowness = watch.slowness()
    assert slowness is not None
    assert slowness.by_deadlines
    assert slowness.shapes == ((24, 12),)


def test_a_version_that_is_not_slower_is_compared_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("service.lifecycle.rollback_monitor.monotonic", lambda: clock.now)
    old, new = tallied(*[0.01] * 500), tallied()
    watch = RollbackWindow(new, old, BOUNDS)
    answer(new, *[1.0] * 500)
    waits = []
    for _ in range(3):
        began = clock.now
        while watch.slowness() is None:
            clock.now += 1
        waits.append(clock.now - began)
        watch.postpone()
    assert waits == [0, 10, 20]


def paired(new: Any, old: Any) -> Comparison:
    return Comparison(np.array(new), np.array(old), np.zeros(len(new), np.int64))


@pytest.mark.parametrize(
    ("new", "old", "slower"),
    [
        ([1.0] * 100, [1.0] * 100, False),
        ([2.5] * 100, [1.0] * 100, False),
        ([3.5] * 100, [1.0] * 100, True),
        ([3.5] * 100, [1.0] * 80 + [9.0] * 20, True),  # others' noise does not hide it
        ([1.0] * 90 + [50.0] * 10, [1.0] * 100, True),  # its tail
        ([1.0] * 95 + [50.0] * 5, [1.0] * 95 + [50.0] * 5, False),  # everybody's
        ([1.0] * 92 + [50.0] * 8, [1.0] * 100, False),  # it may be chance
        ([1.0] * 80 + [50.0] * 20, [1.0] * 92 + [50.0] * 8, False),
        ([1.0] * 80 + [50.0] * 20, [1.0] * 100, True),
        ([0.0012] * 100, [0.0001] * 98 + [0.0002] * 2, True),
        ([0.0001] * 60 + [0.0019] * 40, [0.0001] * 100, False),  # below what counts as slow
    ],
)
def test_slower_is_what_takes_longer_in_turns(
    new: list[float], old: list[float], slower: bool
) -> None:
    assert paired(new, old).is_slower(3) is slower


@given(st.lists(st.floats(0, 100, width=32), max_size=40), st.integers(0, 40))
def test_a_tally_keeps_the_latest_answers_since_its_mark(seconds: list[float], mark: int) -> None:
    stats = VersionStats()
    for place, one in enumerate(seconds):
        if place == mark:
            stats.mark()
        stats.took(place + 1, 0, one)
    kept = seconds[mark:] if mark < len(seconds) else seconds
    kinds, found = stats.latest()
    assert sorted(found.tolist()) == sorted(kept)
    assert len(kinds) == len(kept)


@given(st.integers(1, 10_000), st.integers(0, 2048))
def test_a_kind_of_request_is_told_apart_by_powers_of_two(candidates: int, history: int) -> None:
    stats = VersionStats()
    stats.took(candidates, history, 1.0)
    for asked, middle in zip((candidates, history), shape_of(stats.latest()[0][0]), strict=True):
        assert middle.bit_length() == asked.bit_length()


def version(name: str) -> LoadedModel:
    return LoadedModel(SimpleNamespace(version=name, schema=None), SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize("niceness", [0, LOWEST])
def test_a_bundle_is_inspected_at_the_priority_that_is_told(world: World, niceness: int) -> None:
    """The first one at our own: nobody is being answered yet."""
    child = sandbox.start(world.bundle, SandboxLimits(1 << 32, 60), niceness)
    said, _ = child.communicate(timeout=60)
    assert b'"proved":true' in said
    told = os.getpriority(os.PRIO_PROCESS, 0) + niceness
    assert f'"niceness":{min(told, LOWEST)}'.encode() in said


async def test_a_version_is_drained_when_its_last_request_ends() -> None:
    registry, old, new = ModelRegistry(), version("old"), version("new")
    registry.activate(old)
    first, second = registry.lease(None), registry.lease("old")
    with first:
        with second:
            registry.activate(new)
            registry.remove(old)
            draining = asyncio.create_task(registry.drained(old))
            await asyncio.sleep(0)
            assert not draining.done()
            assert registry.under_way(old) == 2
        await asyncio.sleep(0)
        assert not draining.done()
    await asyncio.wait_for(draining, 60)
    assert registry.lease(None).version is new


@pytest.mark.parametrize(
    ("error", "failures"),
    [(ModelFault("nan"), 1), (RuntimeError(), 1), (StoreFailure("down"), 0), (KeyError(), 1)],
)
def test_only_what_is_a_models_fault_counts_against_it(error: Exception, failures: int) -> None:
    registry, one = ModelRegistry(), version("one")
    registry.activate(one)
    with pytest.raises(type(error)), registry.lease(None):
        raise error
    assert one.stats.failures == failures
    assert one.stats.answers == 0


def test_shapes_are_a_few_of_those_seen_from_smallest_to_largest() -> None:
    shapes = RecentShapes()
    assert (512, 64) in shapes.typical(64, 512)
    for candidates in range(1, 500):
        shapes.note(candidates, candidates % 65)
    typical = shapes.typical(64, 512)
    assert len(typical) == 12
    assert typical[0] == (1, 1)
    assert typical[-1] == (499, 499 % 65)


def test_the_memory_there_is_is_read() -> None:
    free = memory.available_bytes()
    assert 0 < free < 2**50


@pytest.fixture
def copies(tmp_path: Path, world: World) -> LocalCopies:
    folder = LocalCopies(tmp_path / "private", world.models)
    folder.prepare()
    return folder


def test_a_full_disk_is_a_refusal_that_leaves_nothing(
    copies: LocalCopies, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, descriptor: int, name: str, record: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(importer, "_copy_file", full)
    with pytest.raises(BundleError, match=r"No space left on device; make room there or set QIN_"):
        import_bundle(world.bundle.path, copies, ImportPolicy(2**40))
    assert list((copies.path / "incoming").iterdir()) == []
    assert list((copies.path / "copies").iterdir()) == []


def test_a_bundle_over_the_limit_is_refused_before_it_is_copied(
    copies: LocalCopies, world: World
) -> None:
    with pytest.raises(BundleError, match="QIN_MAX_BUNDLE_BYTES"):
        import_bundle(world.bundle.path, copies, ImportPolicy(1000))


def test_a_damaged_private_copy_is_made_again(copies: LocalCopies, world: World) -> None:
    first = import_bundle(world.bundle.path, copies, ImportPolicy(2**40))
    hostile.flip_a_bit(first.bundle.path)
    again = import_bundle(world.bundle.path, copies, ImportPolicy(2**40))
    assert again.bundle.path == first.bundle.path
    assert import_bundle(world.bundle.path, copies, ImportPolicy(2**40)).copy == first.copy


def test_what_is_remembered_survives_and_a_damaged_memory_is_a_new_beginning(
    copies: LocalCopies, world: World
) -> None:
    copy = import_bundle(world.bundle.path, copies, ImportPolicy(2**40)).copy
    copies.state.update(active=copy)
    assert LocalCopies(copies.path.parent, world.models).state.read().active == copy
    (copies.path / "state.json").write_bytes(b"{")
    assert copies.state.read().active is None
