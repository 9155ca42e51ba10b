"""A Ray cluster writes the bytes that processes of this machine write, a node killed or not."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.batch.command import line, parts, scored
from tests.batch.inputs import make_lists, write
from tests.batch.kills import forget_some, killed_after
from tests.batch.test_resume import digest
from tests.service.world import World

PACKAGES = os.environ.get("RAY_PACKAGES", "")  # a folder that it is installed in, apart
PATH = os.pathsep.join(p for p in (os.environ.get("PYTHONPATH", os.getcwd()), PACKAGES) if p)
ENVIRONMENT = os.environ | {
    "PYTHONPATH": PATH,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    # Else a driver takes the machine's outer address for 127.0.0.1, where no node listens.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

WHERE = ("local", "ray", "local", "ray", "local", "local", "ray", "local", "ray", "local")

pytestmark = [
    pytest.mark.skipif(
        not (find_spec("ray") or (Path(PACKAGES, "ray").is_dir() and PACKAGES)),
        reason="Ray is not installed: pip install -e '.[ray]'",
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module", params=["rows", "lists"])
def source(
    request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    lists = make_lists(world, 400, seed=6)
    table = lists.rows() if request.param == "rows" else lists.table()
    return write(table, tmp_path_factory.mktemp("input") / "input.parquet")


def on_cluster(world: World, source: Path, output: Path, how: str) -> str:
    words = (str(world.models), world.store, str(source), str(output), "2000", "2", how)
    command = [sys.executable, "-m", "tests.batch.ray_cluster", *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_local_then_ray_with_a_node_killed_is_the_same_output(
    world: World, source: Path, tmp_path: Path
) -> None:
    options = ("--part-candidates", "2000")
    scored(world, source, tmp_path / "local", *options)
    killed = on_cluster(world, source, tmp_path / "ray", "kill")
    assert "a node was ended" in killed
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")
    # What a local run has begun, a cluster ends.
    for part in parts(tmp_path / "local")[1::2]:
        part.unlink()
    on_cluster(world, source, tmp_path / "local", "whole")
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


def test_ten_kills_at_random_between_local_and_ray_leave_no_trace(
    world: World, source: Path, tmp_path: Path
) -> None:
    output, chance, killed = tmp_path / "out", random.Random(9), 0
    options = ("--part-candidates", "1000")
    for workers, on in zip("1211212112", WHERE, strict=True):
        command = line(world, source, output, *options, "--workers", workers, "--on", on)
        killed += killed_after(command, output, chance.randint(1, 20), ENVIRONMENT)
        forget_some(output)
    assert killed >= 8
    scored(world, source, output, *options, "--workers", "1")
    scored(world, source, tmp_path / "undisturbed", *options)
    assert digest(output) == digest(tmp_path / "undisturbed")


def test_without_a_cluster_one_is_started_here(world: World, source: Path, tmp_path: Path) -> None:
    command = line(world, source, tmp_path / "out", "--on", "ray", "--workers", "1")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert parts(tmp_path / "out")
