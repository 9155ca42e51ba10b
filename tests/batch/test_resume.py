"""A run that is killed anywhere goes on, and its output is that of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from batch.grouping.spill import record_of
from batch.job import Columns
from batch.options import Options
from batch.output.bucket_scores import RECORD
from batch.output.folder import Folder
from batch.progress import Progress
from batch.run import prepare
from batch.units import Unit
from batch.worker import Worker
from tests.batch.command import line, manifest, parts, score, scored
from tests.batch.inputs import make_lists, write
from tests.batch.kills import forget_some, killed_after
from tests.service.small_schema import SMALL
from tests.service.world import World

KILLS = 3  # at least, of five: those with Ray between are in test_ray
OPTIONS = ("--part-candidates", "2000")
ROWS = Columns("rows", "user_id", "item_id")


def digest(output: Path) -> str:
    """Of names and bytes of everything in the output."""
    whole = sha256()
    for path in sorted(output.iterdir()):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def flip_the_middle(path: Path, record: int = 1, field: int = 0) -> None:
    """Change a bit, as a failing disk does: of a field of the record in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 // record * record + field] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module", params=["rows", "lists"])
def source(
    request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    lists = make_lists(world, 400, seed=5)
    table = lists.rows() if request.param == "rows" else lists.table()
    return write(table, tmp_path_factory.mktemp("input") / "input.parquet")


@pytest.fixture(scope="module")
def rows(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what does not depend on the layout."""
    return write(make_lists(world, 400, seed=5).rows(), tmp_path_factory.mktemp("in") / "r.parquet")


@pytest.fixture(scope="module")
def undisturbed(world: World, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    scored(world, source, output, *OPTIONS)
    return output


def test_kills_at_random_leave_no_trace(
    world: World, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, chance = tmp_path / "out", random.Random(8)
    killed = 0
    for workers in (*"12121",):
        command = line(world, source, output, *OPTIONS, "--workers", workers)
        killed += killed_after(command, output, chance.randint(1, 20))
        forget_some(output)
    assert killed >= KILLS
    done = score(world, source, output, *OPTIONS, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert digest(output) == digest(undisturbed)


def test_a_killed_worker_is_replaced_and_its_unit_done_again(
    world: World, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = line(world, source, output, *OPTIONS, "--workers", "2")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline, killed = time.monotonic() + 60, 0
    while process.poll() is None and killed < 2 and time.monotonic() < deadline:
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        busy = list(output.glob("part-*")) or list(output.glob("_work/*/scores-*"))
        if workers and busy:
            workers[killed % len(workers)].kill()
            killed += 1
            time.sleep(0.3)
        time.sleep(0.02)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert killed
    assert digest(output) == digest(undisturbed)


def test_no_process_outlives_a_killed_run(world: World, rows: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        line(world, rows, tmp_path / "out", "--workers", "2"), stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        children: list[psutil.Process] = []
        while len(children) < 2 and time.monotonic() < deadline and process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


SLEEPER = """
import multiprocessing, os, signal, threading, time
from batch.engines.local import CONTEXT, _end_with

def unit():
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    time.sleep(60)

if __name__ == "__main__":
    worker = CONTEXT.Process(target=unit)
    worker.start()
    print(worker.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_in_a_long_unit_ends_with_its_parent(tmp_path: Path) -> None:
    program = tmp_path / "sleeper.py"
    program.write_text(SLEEPER)
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
    deadline = time.monotonic() + 30
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_part_that_is_not_whole_is_written_again(
    world: World, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    scored(world, source, output, *OPTIONS)
    first, second, third, fourth = parts(output)[:4]
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(third.read_bytes())
    flip_the_middle(fourth)
    (output / ".part-x.0000.partial").write_bytes(b"half")
    scored(world, source, output, *OPTIONS)
    assert digest(output) == digest(undisturbed)
    assert manifest(output) == manifest(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_one_line_and_it_goes_on(
    world: World, source: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out"
    command = line(world, source, output, *OPTIONS, "--workers", "2")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None:
        children = psutil.Process(process.pid).children()
        workers = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
        if workers:
            workers[0].suspend()  # so that the run does not end before
            break
    time.sleep(random.Random(number).random())  # another worker starts meanwhile
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number, told
    last = [row for row in told.splitlines() if not row.startswith(("reading ", "scoring "))]
    assert last == [f"error: ended by {number.name}"]
    assert not (output / "_lock").exists()
    assert not list(output.glob(".*"))
    scored(world, source, output, *OPTIONS)
    assert digest(output) == digest(undisturbed)


@pytest.mark.parametrize(
    ("damaged", "where"),
    [
        ("spill/bucket-00001.records", (record_of(ROWS, SMALL).itemsize, 16)),  # an item
        ("spill/lengths.json", ()),
        ("scores-00000-000.records", (RECORD.itemsize, 8)),  # a score
        ("scored-00000.json", ()),
        ("survey.json", ()),
    ],
)
def test_intermediate_files_that_are_not_whole_are_written_again(
    world: World, tmp_path: Path, damaged: str, where: tuple[int, ...]
) -> None:
    source = write(make_lists(world, 60).rows(), tmp_path / "rows.parquet")
    scored(world, source, tmp_path / "undisturbed", *OPTIONS)
    output = tmp_path / "out"
    options = Options(
        world.models, world.store, str(source), str(output), workers=1, part_candidates=2000
    )
    job = prepare(options, Folder(output), Progress(as_json=True)).job
    worker = Worker(job)
    worker.run(Unit("bucket", 0))
    worker.close()
    flip_the_middle(Path(job.work) / damaged, *where)
    scored(world, source, output, *OPTIONS)
    assert digest(output) == digest(tmp_path / "undisturbed")


def test_a_damaged_recipe_is_refused(world: World, tmp_path: Path) -> None:
    source = write(make_lists(world, 5).table(), tmp_path / "l.parquet")
    scored(world, source, tmp_path / "out")
    job = tmp_path / "out" / "_job.json"
    whole = job.read_bytes()
    for damaged in (whole[:100], b"", b"[]", whole.replace(b"edges", b"adges")):
        job.write_bytes(damaged)
        refused = score(world, source, tmp_path / "out")
        assert refused.returncode == 1
        assert "_job.json: damaged" in refused.stderr


def test_an_output_of_other_options_is_refused(world: World, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    scored(world, source, output, *OPTIONS)
    other = score(world, source, output, *OPTIONS, "--threads-as", "1")
    assert other.returncode == 1
    assert "cut was {'chunk': 128, 'min_chunk': 64, 'threads_as': 2}" in other.stderr
    assert other.stderr.count("\n") == 2  # what it reads, and the error


def test_another_kind_of_processor_is_refused(world: World, tmp_path: Path) -> None:
    source = write(make_lists(world, 20).table(), tmp_path / "l.parquet")
    output = tmp_path / "out"
    scored(world, source, output)
    job = output / "_job.json"
    kind = manifest(output)["recipe"]["processor"]
    job.write_text(job.read_text().replace(kind, "x86_64 AuthenticAMD/25/1"))
    for part in parts(output):
        part.unlink()
    refused = score(world, source, output)
    assert refused.returncode == 1
    assert "was begun on x86_64 AuthenticAMD/25/1" in refused.stderr
    allowed = score(world, source, output, "--allow-other-processor")
    assert allowed.returncode == 0, allowed.stderr
    assert manifest(output)["other_processors"] == [kind]


def test_two_runs_do_not_write_to_one_folder(world: World, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with Folder(output).locked():
        second = score(world, source, output)
        assert second.returncode == 1
        assert "another run writes here" in second.stderr
        assert [path.name for path in output.iterdir()] == ["_lock"]
    assert score(world, source, output).returncode == 0


def test_runs_of_two_outputs_share_no_intermediate_files_in_one_work_folder(
    world: World, rows: Path, tmp_path: Path
) -> None:
    """They may be of two stores, and one may end, and remove its files, before the other."""
    works = [
        prepare(
            Options(
                *(world.models, world.store, str(rows), str(tmp_path / name)),
                workers=1,
                work=tmp_path / "work",
            ),
            Folder(tmp_path / name),
            Progress(),
        ).job.work
        for name in ("a", "b", "a")
    ]
    assert works[0] == works[2] != works[1]
