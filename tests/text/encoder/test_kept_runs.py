"""What is kept of a run: whole or absent, with the threads that it began with, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.full_disk import files_of_at_most
from tests.text.encoder.test_fit import KilledError, killed_at, small, weights
from text.corpus.corpus import Corpus
from text.encoder.fit import IDENTITY, fit
from text.encoder.recipe import AdamW
from text.encoder.run import Run, RunError
from text.tokenizer import FILE
from training.bench.steps import torch_threads


def test_a_run_that_a_full_disk_ended_at_its_first_file_goes_on_with_room(
    tiny: Corpus, tmp_path: Path
) -> None:
    """A part of the identity would be that of another run."""
    recipe = small("pairs.steps=0", "multi_task.steps=0", "masked.steps=1")
    out = tmp_path / "out"
    with pytest.raises(OSError, match="File too large") as failed, files_of_at_most(64):
        fit(tiny, recipe, out)
    assert failed.value.filename == str(tmp_path / ".out.run" / IDENTITY)
    assert fit(tiny, recipe, out)["stages"] == ["masked"]


def test_an_identity_that_is_no_text_is_of_another_run(tiny: Corpus, tmp_path: Path) -> None:
    recipe = small("pairs.steps=0", "multi_task.steps=0", "masked.steps=1")
    first = fit(tiny, recipe, tmp_path / "out")
    kept = tmp_path / ".out.run"
    kept.mkdir()
    (kept / IDENTITY).write_bytes(b"\xff\xfe")
    assert fit(tiny, recipe, tmp_path / "out") == first
    assert kept.exists()


def test_a_run_resumed_with_other_threads_ends_with_the_same_weights(
    tiny: Corpus, tmp_path: Path
) -> None:
    """As on a machine with other cores: the last digits of sums depend on the threads."""
    recipe = small("pairs.steps=0", "multi_task.steps=0")
    with torch_threads(2):
        fit(tiny, recipe, tmp_path / "whole")
        killed_at("masked", 4, tiny, recipe, tmp_path / "out")
    with torch_threads(1):
        fit(tiny, recipe, tmp_path / "out")
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Spoiling:
    """A stage whose last step has a finite loss, and a gradient that is none."""

    name, steps, learning_rate = "pairs", 3, 1e-3

    def __init__(self, module: nn.Linear) -> None:
        self._module = module

    def loss(self, step: int) -> torch.Tensor:
        zero = 0.0 if step == self.steps - 1 else 1.0
        return (self._module.weight.square().sum() * zero).sqrt()


def test_weights_that_the_last_step_spoilt_are_named(tmp_path: Path) -> None:
    """A checkpoint with them would be refused by every command."""
    run = Run(nn.Linear(2, 2), AdamW(), tmp_path / "state.pt")
    with pytest.raises(RunError, match=r"weight is not finite .*: lower pairs\.learning_rate"):
        run.train(Spoiling(run.modules))  # type: ignore[arg-type]
    assert run.done == []
    assert not (tmp_path / "state.pt").exists()


def test_a_run_is_not_trained_by_two_processes_at_once(tiny: Corpus, tmp_path: Path) -> None:
    """One would write into the state that the other is writing."""
    recipe = small("pairs.steps=0", "multi_task.steps=0")

    def another(name: str, done: int, total: int) -> None:
        if (name, done) == ("masked", 2):
            with pytest.raises(RunError, match=r"\.out\.run: another process is at this run"):
                fit(tiny, recipe, tmp_path / "out")
            raise KilledError

    with pytest.raises(KilledError):
        fit(tiny, recipe, tmp_path / "out", another)
    assert fit(tiny, recipe, tmp_path / "out")["stages"] == ["masked"]


def test_a_damaged_tokenizer_of_a_run_is_named_with_the_remedy(
    tiny: Corpus, tmp_path: Path
) -> None:
    recipe = small("pairs.steps=0", "multi_task.steps=0")
    killed_at("masked", 4, tiny, recipe, tmp_path / "out")
    (tmp_path / ".out.run" / FILE).write_text("")
    with pytest.raises(RunError, match=r"tokenizer\.json: .+; delete .+\.out\.run to start again"):
        fit(tiny, recipe, tmp_path / "out")


def test_a_flipped_bit_of_a_kept_state_is_found(tiny: Corpus, tmp_path: Path) -> None:
    recipe = small("pairs.steps=0", "multi_task.steps=0")
    killed_at("masked", 4, tiny, recipe, tmp_path / "out")
    state = tmp_path / ".out.run" / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(RunError, match=r"state\.pt: damaged; delete .+\.out\.run to start again"):
        fit(tiny, recipe, tmp_path / "out")
