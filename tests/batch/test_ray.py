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

WHERE = ("local", "ray", "local", "ray", "local")

pytestmark = [
    pytest.mark.skipif(
        not (find_spec("ray") or (Path(PACKAGES, "ray").is_dir() and PACKAGES)),
        reason="Ray is not installed: pip install -e '.[ray]'",
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def sources(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One input, by rows and by lists."""
    lists, folder = make_lists(world, 400, seed=6), tmp_path_factory.mktemp("input")
    tables = {"rows": lists.rows(), "lists": lists.table()}
    return {name: write(table, folder / f"{name}.parquet") for name, table in tables.items()}


def test_local_then_a_cluster_with_a_node_killed_is_the_same_output(
    world: World, sources: dict[str, Path], tmp_path: Path
) -> None:
    runs, wanted, begun = [], {}, {}
    for layout, source in sources.items():
        output = tmp_path / layout
        scored(world, source, output, "--part-candidates", "2000")
        wanted[layout] = digest(output)
        # What a local run has begun, a cluster ends; and what it has not, while a node is killed.
        begun[layout] = parts(output)[1::2]
        for part in begun[layout]:
            part.unlink()
        runs += [f"kill:{source}:{tmp_path / f'{layout}-killed'}", f"whole:{source}:{output}"]
    command = [sys.executable, "-m", "tests.batch.ray_cluster", str(world.models), world.store]
    done = subprocess.run(
        [*command, *runs], env=ENVIRONMENT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("a node was ended") == len(sources)
    for layout in sources:
        assert begun[layout]
        assert digest(tmp_path / f"{layout}-killed") == wanted[layout]
        assert digest(tmp_path / layout) == wanted[layout]


@pytest.mark.parametrize("layout", ["rows", "lists"])
def test_kills_at_random_between_local_and_ray_leave_no_trace(
    world: World, sources: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    source, output, chance, killed = sources[layout], tmp_path / "out", random.Random(9), 0
    options = ("--part-candidates", "1000")
    for workers, on in zip("12112", WHERE, strict=True):
        command = line(world, source, output, *options, "--workers", workers, "--on", on)
        killed += killed_after(command, output, chance.randint(1, 20), ENVIRONMENT)
        forget_some(output)
    assert killed >= 4
    scored(world, source, output, *options, "--workers", "1")
    scored(world, source, tmp_path / "undisturbed", *options)
    assert digest(output) == digest(tmp_path / "undisturbed")


def test_without_a_cluster_one_is_started_here(
    world: World, sources: dict[str, Path], tmp_path: Path
) -> None:
    command = line(world, sources["rows"], tmp_path / "out", "--on", "ray", "--workers", "1")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert parts(tmp_path / "out")
