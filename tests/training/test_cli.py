import json
import subprocess
import sys
from pathlib import Path

import pytest

SIZES = ["--train", "2000", "--valid", "400", "--test", "400", "--items", "100", "--history", "8"]


def training(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made = training("synthesize", str(folder), *SIZES, "--json")
    assert made.returncode == 0, made.stderr
    assert 0.7 < json.loads(made.stdout)["best_auc_valid"] < 1
    return folder


def test_from_data_to_figures(data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "c")
    fitted = training("fit", str(data), "--preset", "demo", "--epochs", "2", "--out", out, "--json")
    assert fitted.returncode == 0, fitted.stderr
    assert len(json.loads(fitted.stdout)["epochs"]) == 2
    evaluated = training("evaluate", out, str(data), "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    figures = json.loads(evaluated.stdout)
    assert figures["rows"] == 400
    best = json.loads((data / "truth.json").read_text())["best_auc_valid"]
    assert figures["share_of_the_possible"] == (figures["auc"] - 0.5) / (best - 0.5)
    assert (tmp_path / "c" / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_is_whole_where_output_is_no_terminal(tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name-" * 8)
    made = training("synthesize", str(folder), *SIZES)
    assert any(
        line.startswith(f"{folder}: 2,000 training rows") and "on valid: 0." in line
        for line in made.stderr.splitlines()
    ), made.stderr


def test_what_is_missing_is_one_line_and_not_a_traceback(data: Path, tmp_path: Path) -> None:
    for words in (
        ("fit", str(tmp_path), "--out", str(tmp_path / "c")),
        ("fit", str(data), "--out", str(tmp_path / "c"), "--learning-rate", "nan"),
        ("evaluate", str(tmp_path / "nothing"), str(data)),
        ("synthesize", str(tmp_path / "new"), "--history", "999999"),
        ("synthesize", "/dev/null/out"),
    ):
        failed = training(*words)
        assert failed.returncode == 1
        assert "error:" in failed.stderr
        assert "Traceback" not in failed.stderr
