"""A run goes on with the threads that it began with, in as many processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.fitting import RECIPE, run
from tests.training.worlds import SIZES, SMALL
from training.bench.steps import torch_threads
from training.checkpoint import WEIGHTS
from training.loop.data_parallel import ProcessGroup
from training.loop.optimiser import Optimiser
from training.loop.run import Run
from training.qin import QIN


class KilledError(Exception):
    """Stands for a kill: of the run, its files alone are left."""


def test_a_run_resumed_with_other_threads_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 3})

    def killed(what: str, done: int, total: int) -> None:
        if what.startswith("epoch 2 "):
            raise KilledError

    with torch_threads(2):
        run(tmp_path / "whole", recipe)
        with pytest.raises(KilledError):
            run(tmp_path / "killed", recipe, killed)
    with torch_threads(1):
        run(tmp_path / "killed", recipe)
    whole, found = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "killed"))
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())


def test_threads_are_of_as_many_processes_and_the_first_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def made(rank: int, count: int) -> Run:
        network = QIN(SMALL, SIZES)
        group, state = ProcessGroup(rank, count), tmp_path / "state"
        return Run(network, Optimiser(network, RECIPE), RECIPE, "", state, group)

    with torch_threads(2):
        made(0, 2).save()
    for rank, count, threads, said in ((0, 2, 2, 1), (1, 2, 2, 0), (0, 1, 1, 0)):
        caplog.clear()
        with torch_threads(1):
            made(rank, count).resume()
            assert torch.get_num_threads() == threads
        assert len(caplog.messages) == said
