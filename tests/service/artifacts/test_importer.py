"""Bundles are imported whole, or not at all; what is known of them is kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import structlog

from model_export.bundle.errors import BundleError
from service.artifacts import importer
from service.artifacts.importer import ImportPolicy, import_bundle
from service.artifacts.local_copies import LocalCopies
from tests.service.lifecycle import hostile
from tests.service.world import World


@pytest.fixture
def copies(tmp_path: Path, world: World) -> LocalCopies:
    folder = LocalCopies(tmp_path / "private", world.models)
    folder.prepare()
    return folder


def test_a_full_disk_is_a_refusal_that_leaves_nothing(
    copies: LocalCopies, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(
        folder: Path, descriptor: int, name: str, record: object, target: Path, remedy: str
    ) -> None:
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


def test_a_damaged_memory_is_named_in_our_words(copies: LocalCopies, world: World) -> None:
    (copies.path / "state.json").write_text('{"active": {"version": 3}}')
    with structlog.testing.capture_logs() as lines:
        copies.state.read()
    assert [line["reason"] for line in lines] == [
        "active.version: not text; active.digest: missing"
    ]
    (copies.path / "versions.json").write_text('{"small-1": 3}')
    with pytest.raises(BundleError, match=r"cannot be read: small-1: not text; restore it"):
        import_bundle(world.bundle.path, copies, ImportPolicy(2**40))
