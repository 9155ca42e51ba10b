"""All that two processes compute, in one launch: gradients of one batch, and a training run.

``python -m tests.training.two_processes FOLDER`` is ``torchrun --nproc-per-node=2``, with its agent
and its rendezvous, but for one thing: the processes are forks of the agent's, not interpreters.
"""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests import programs
from tests.training.fitting import run, with_dropout
from tests.training.one_step import one_step
from training.loop.data_parallel import process_group

ITEMS_ALONE, WITH_USERS, CHECKPOINT = "gradients", "gradients-users", "checkpoint"


def launch(folder: Path) -> None:
    """Run this program, in a fork that has imported torch."""
    done = programs.run(__name__, str(folder))
    assert done.returncode == 0, done.stderr


def compute(out: Path) -> None:
    torch.set_num_threads(1)
    with process_group():
        one_step(out / ITEMS_ALONE, users=False)
        one_step(out / WITH_USERS, users=True)
        run(out / CHECKPOINT, with_dropout(0.0))


if __name__ == "__main__":
    config = LaunchConfig(
        *(1, 1, 2),  # nodes at least, at most, and processes on each
        run_id=str(uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, compute)(Path(sys.argv[1]))
