"""The number of torch's threads in a run that is resumed."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

logger = logging.getLogger("training")


def go_on_with(threads: int, state: Path, says: bool = True) -> None:
    """Set the threads that a run began with, as the last digits of sums depend on them; say so
    where others were asked for, unless another process does.
    """
    if threads != torch.get_num_threads():
        if says:
            why = "goes on with the %s threads that it began with"
            logger.warning(f"warning: %s: {why}", state, threads)
        torch.set_num_threads(threads)
