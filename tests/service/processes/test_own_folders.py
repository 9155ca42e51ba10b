"""The folders that a service believes belong to its user alone, as the image runs it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import unprivileged
from tests.service.process import serving, start
from tests.service.processes.test_workers import ready_lines, wait_until, workers_of
from tests.service.world import World


@pytest.fixture
def lent(world: World) -> Iterator[tuple[World, Path]]:
    """A world that the image's user may read, and a folder with it that is not the user's."""
    try:
        unprivileged.under()
    except unprivileged.Cannot as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory() as folder:
        copy = unprivileged.lent(world, Path(folder))
        mount = Path(folder) / "mount"  # as Kubernetes makes an emptyDir
        mount.mkdir()
        mount.chmod(0o777)
        yield copy, mount


def test_workers_share_a_folder_that_they_make_below_a_mount_of_roots(
    lent: tuple[World, Path],
) -> None:
    world, mount = lent
    variables = {
        **unprivileged.variables(mount.parent / "private"),
        "QIN_TABLE_FOLDER": str(mount / "qin"),
        "QIN_WORKERS": "2",
    }
    with serving(world.models, world.store, under=unprivileged.under(), **variables) as service:
        wait_until(lambda: ready_lines(service) == 2, "not all workers are ready")
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in workers_of(service)]
        assert all(str(mount / "qin") in of for of in maps)
        with service.client() as client:
            body = {"user_id": 1, "candidates": world.ids[:20].tolist()}
            assert client.post("/v1/score", json=body).status_code == 200
        for folder in (mount / "qin", mount.parent / "private"):
            assert folder.stat().st_mode & 0o777 == 0o700
        assert service.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a folder of another user's")
@pytest.mark.parametrize("setting", ["QIN_TABLE_FOLDER", "QIN_PRIVATE"])
def test_a_folder_of_another_user_is_refused_with_the_remedy(
    lent: tuple[World, Path], setting: str
) -> None:
    world, mount = lent
    variables = {**unprivileged.variables(mount.parent / "private"), setting: str(mount)}
    service = start(
        "--bundle",
        str(world.models),
        "--store",
        world.store,
        under=unprivileged.under(),
        **variables,
    )
    assert service.process.wait(60) == 1
    said = service.log.read_text()
    service.remove()
    assert f"{setting}: {mount} belongs to uid 0" in said
    assert f"such as {mount}/qin" in said


def test_an_existing_private_folder_is_mended(world: World, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    private.chmod(0o755)
    with serving(world.models, world.store, QIN_PRIVATE=str(private)):
        for folder in (private, *(path for path in private.rglob("*") if path.is_dir())):
            if "copies" not in folder.parent.parts:
                assert folder.stat().st_mode & 0o777 == 0o700, folder
