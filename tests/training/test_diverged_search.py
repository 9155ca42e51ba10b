"""A search without a result fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.test_cli import in_process
from training.loop.fit import DivergedError


def test_a_search_whose_trials_all_diverged_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no recipe for the next command."""
    sizes = ("--train", "40", "--valid", "40", "--test", "4", "--items", "20")
    assert in_process("synthesize", str(tmp_path / "data"), *sizes).exit_code == 0

    def diverging(*_: object, **__: object) -> None:
        raise DivergedError("training diverged in epoch 1")

    monkeypatch.setattr("training.tuning.tune.fit", diverging)
    (tmp_path / "space.yaml").write_text("learning_rate: {kind: float, low: 1e-3, high: 1e-1}\n")
    words = ("tune", str(tmp_path / "data"), "--space", str(tmp_path / "space.yaml"))
    done = in_process(*words, "--out", str(tmp_path / "study"), "--trials", "2", "--json")
    assert done.exit_code == 1
    assert "study: every trial diverged, so there is no best.yaml" in done.stderr
    assert [row["state"] for row in json.loads(done.stdout)["trials"]] == ["diverged"] * 2
