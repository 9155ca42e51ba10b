"""The disk of the private place is full: nothing comes in, and everything else goes on.

A file system of one MiB, mounted where nobody but the service sees it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import httpx
import pytest

from tests.service.lifecycle.conftest import Swapping, two_versions
from tests.service.process import start, wait_ready

ALONE = ("unshare", "--user", "--map-root-user", "--mount")
MOUNTED = 'mount -t tmpfs -o size=1m,mode=700 none "$0" && exec "$@"'


@pytest.fixture
def swapping(tmp_path: Path) -> Iterator[Swapping]:
    """Serves ``small-1``; its private place is the small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    small = (*ALONE, "sh", "-c", MOUNTED, str(disk))
    tried = subprocess.run([*small, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no file system of one's own here: {tried.stderr.strip()}")
    world, networks = two_versions(tmp_path)
    service = start(
        *("--bundle", str(world.models), "--store", world.store),
        under=small,
        QIN_PRIVATE=str(disk),
        QIN_MODEL_POLICY="manual",
    )
    try:
        wait_ready(service)
        with service.client() as client, service.admin() as admin:
            swapping = Swapping(world, networks, service, client, admin)
            assert swapping.tell("small-1/activate").status_code == 200
            assert swapping.tell("small-2/unload").status_code == 200
            yield swapping
    finally:
        if service.process.poll() is None:
            service.stop()
        service.remove()


def filled(swapping: Swapping) -> Path:
    """Write to the service's disk until nothing more fits; the file that holds it all."""
    seen = f"/proc/{swapping.service.process.pid}/root{swapping.service.private}"
    file = Path(seen) / "full"
    with file.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        stream.writelines(repeat(bytes(4096)))
    return file


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    return str(answer.json()["detail"])


def test_nothing_comes_in_and_the_old_version_goes_on(swapping: Swapping) -> None:
    file = filled(swapping)
    for _ in range(2):
        reason = refused(swapping.tell("small-2/activate"))
        assert "No space left on device" in reason
        assert "QIN_PRIVATE" in reason
        swapping.serves("small-1")
    assert swapping.state("small-2") == "failed"
    file.unlink()
    assert swapping.tell("small-2/activate").json()["active"] == "small-2"
    swapping.serves("small-2")


def test_what_is_in_memory_is_switched_to_and_back(swapping: Swapping) -> None:
    assert swapping.tell("small-2/load").json()["state"] == "ready"
    filled(swapping)
    assert swapping.tell("small-2/activate").json()["active"] == "small-2"
    swapping.serves("small-2")
    assert swapping.tell("rollback").json()["active"] == "small-1"
    swapping.serves("small-1")
    assert "a restart may begin with another version" in swapping.service.log.read_text()
