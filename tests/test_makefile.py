"""``make run`` and ``make demo-text``: from nothing to answers, in small sizes; the next time
nothing is trained."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SIZES = "--preset taste --train 4000 --valid 1000 --test 400 --items 60 --history 8"
FIT = "--preset demo --epochs 1"
WORDS = {
    "CORPUS": f"--languages en,de --from {ROOT}/text/corpus/tiny",
    "ENCODE": "--preset tiny --set masked.steps=4 --set pairs.steps=6 --set multi_task.steps=2",
    "BUILD": "--longest 300",
    "ITEMS": "--least-tags 1 --train 4000 --valid 1000 --test 400 --cold 400 --embedding 16",
    "CONTENT": "--size 16",
    "TEXT_FIT": FIT,
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the targets need of a clone, with this environment as its .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    venv = tmp_path / ".venv"
    venv.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith(".ready"):
            (venv / part.name).symlink_to(part)
    (venv / ".ready").touch()
    return tmp_path


def make_run(clone: Path, timeout: float) -> str:
    return make(clone, "run", {"SIZES": SIZES, "FIT": FIT}, timeout)


def make(
    clone: Path, target: str, settings: dict[str, str], timeout: float, answers: int = 1
) -> str:
    """Run until so many examples' answers are printed, then stop it; return the output."""
    log = clone / "run.log"
    variables = {"PYTHONPATH": str(ROOT), "QIN_ADMIN_PORT": "0", "COLUMNS": "200"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", target, "PORT=0", *(f"{name}={value}" for name, value in settings.items())],
            cwd=clone,
            env={**os.environ, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + timeout
        while log.read_text().count('"scores"') < answers:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    return log.read_text()


def test_make_run_tells_what_features_bring_and_asks_with_them(clone: Path) -> None:
    first = make_run(clone, 240)
    assert "warning" not in first.lower()
    assert len(re.findall(r"-m training fit ", first)) == 2
    said = re.compile(
        r"^AUC with user and request features \(user_index, country, device, hour\): 0\.\d+; "
        r"without: 0\.\d+ \(trained by the same recipe, .*\nshare of what is possible, .*"
        r"without \(at best 0\.\d+: AUC 0\.\d+\)\n",
        re.MULTILINE,
    )
    (brought,) = said.findall(first)
    (curl,) = [line for line in first.splitlines() if line.startswith("curl ")]
    assert json.loads(shlex.split(curl)[-1])["features"] == {"device": 1, "hour": 12.0}
    (answer,) = [line for line in first.splitlines() if '"scores"' in line]
    assert json.loads(answer)["defaulted"] == []  # the store has the user's record
    again = make_run(clone, 120)
    assert said.findall(again) == [brought]
    assert "-m training" not in again


@pytest.mark.timeout(600)
def test_make_demo_text_ends_with_german_items_that_are_scored(clone: Path) -> None:
    first = make(clone, "demo-text", WORDS, 400, answers=2)
    assert "warning" not in first.lower()
    assert re.search(
        r"^36 cold items, \d+ of them with de texts alone; best AUC", first, re.MULTILINE
    )
    puts = re.findall(r"^curl -s -X PUT \S+/v1/items/(\d+) .* -d (.+)$", first, re.MULTILINE)
    texts = [json.loads(*shlex.split(data))["text"] for _, data in puts]
    assert [list(text) for text in texts] == [["de"], ["de"]]
    answers = [json.loads(line) for line in first.splitlines() if '"scores"' in line]
    assert answers[-1]["item_ids"] == answers[-1]["cold_items"] == [int(item) for item, _ in puts]
    assert answers[-1]["unknown_items"] == []
    assert len(set(answers[-1]["scores"])) == 2
    again = make(clone, "demo-text", WORDS, 120, answers=2)
    assert not re.search(r"-m (training|text) ", again)
    planned = subprocess.run(
        ["make", "-n", "run"], cwd=clone, check=True, capture_output=True, text=True
    )
    assert "QIN_ENCODER=var/encoders/words .venv/bin/python -m service serve" in planned.stdout
    assert "-m text" not in planned.stdout


@pytest.mark.parametrize("target", ["run", "serve", "demo-text"])
def test_every_target_that_serves_takes_the_admin_port(clone: Path, target: str) -> None:
    planned = subprocess.run(
        ["make", "-n", target, "PORT=9000", "ADMIN_PORT=9001"],
        cwd=clone,
        check=True,
        capture_output=True,
        text=True,
    )
    (command,) = [line for line in planned.stdout.splitlines() if "-m service serve" in line]
    assert command.startswith("QIN_ADMIN_PORT=9001 ")
    assert "--port 9000" in command
