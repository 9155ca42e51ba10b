"""All that two processes compute, in one launch: gradients of one batch, and a training run.

``torchrun … -m tests.training.two_processes FOLDER``
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from tests.training.fitting import run, with_dropout
from tests.training.one_step import one_step
from training.data_parallel import process_group

ITEMS_ALONE, WITH_USERS, CHECKPOINT = "gradients", "gradients-users", "checkpoint"


def launch(folder: Path) -> None:
    """Run this program by torchrun. Most of its time are three imports of torch."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = [sys.executable, *torchrun, __name__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=120) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the two as well, which torchrun may leave
        process.wait()


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    with process_group():
        one_step(out / ITEMS_ALONE, users=False)
        one_step(out / WITH_USERS, users=True)
        run(out / CHECKPOINT, with_dropout(0.0))
