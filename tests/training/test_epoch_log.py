"""Metrics of epochs on disk as they end: JSON lines and TensorBoard events."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.fitting import RECIPE, run
from tests.training.test_fit import fit_with
from training import checkpoint
from training.loop.epoch_log import TAGS, JsonLines, TensorBoard


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stop_after(epochs: int, beside: Path):  # type: ignore[no-untyped-def]
    def on_progress(what: str, done: int, total: int) -> None:
        if beside.exists() and len(lines(beside)) == epochs:
            raise KeyboardInterrupt

    return on_progress


def test_a_line_per_epoch_survives_an_interruption_and_ends_in_the_checkpoint(
    tmp_path: Path,
) -> None:
    beside = tmp_path / "c.metrics.jsonl"
    with pytest.raises(KeyboardInterrupt):
        fit_with(RECIPE, tmp_path / "c", stop_after(2, beside))
    first = lines(beside)
    assert [e["epoch"] for e in first] == [1, 2]
    with beside.open("a") as file:
        file.write('{"epoch": 3, "trai')  # cut by a kill
    with pytest.raises(KeyboardInterrupt):
        fit_with(RECIPE, tmp_path / "c", stop_after(4, beside))
    assert lines(beside)[:2] == first
    run(tmp_path / "c")
    assert not beside.exists()
    kept = lines(tmp_path / "c" / "metrics.jsonl")
    assert kept[:2] == first
    assert kept == checkpoint.read_metrics(tmp_path / "c")["epochs"]


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "m.jsonl", [])
    log.append({"epoch": 1, "train_loss": float("nan"), "valid_auc": float("inf")})
    assert lines(log.path) == [{"epoch": 1, "train_loss": None, "valid_auc": None}]


def test_tensorboard_has_each_epoch_once_after_a_resumed_run(tmp_path: Path) -> None:
    from tests.training.worlds import small_rows
    from training.loop.data_parallel import process_group
    from training.loop.fit import fit

    train, valid = small_rows(1000, seed=1), small_rows(300, seed=2)

    def fitted(on_progress) -> None:  # type: ignore[no-untyped-def]
        board = TensorBoard(tmp_path / "events", RECIPE)
        try:
            with process_group() as group:
                fit(train, valid, RECIPE, tmp_path / "c", group, on_progress, board)
        finally:
            board.close()

    with pytest.raises(KeyboardInterrupt):
        fitted(stop_after(2, tmp_path / "c.metrics.jsonl"))
    fitted(lambda what, done, total: None)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    epochs = checkpoint.read_metrics(tmp_path / "c")["epochs"]
    for name, tag in TAGS.items():
        found = {e.step: e.value for e in events.Scalars(tag)}
        assert len(events.Scalars(tag)) == len(epochs)
        assert found == pytest.approx({e["epoch"]: e[name] for e in epochs}, rel=1e-6)
    assert (
        b"learning_rate: 0.01 "
        in events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]
    )


def test_without_the_extra_tensorboard_is_refused_in_one_line_before_the_data_are_read(
    tmp_path: Path,
) -> None:

    code = "import sys; sys.modules['tensorboard'] = None\nfrom training.__main__ import app; app()"
    words = ("fit", str(tmp_path), "--out", str(tmp_path / "c"), "--tensorboard", "events")
    command = [sys.executable, "-c", code, *words]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "error: --tensorboard: requires the extra tensorboard: "
        "`make setup` in a clone, elsewhere "
        "pip install -c constraints.txt 'qin-serving[tensorboard]'"
    ]
