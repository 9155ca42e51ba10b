"""Gradients of one batch, by as many processes as torchrun says: ``… one_step OUT``."""

from __future__ import annotations

import sys

import numpy as np
import torch
from safetensors.torch import save_file

from tests.training.worlds import SIZES, SMALL, small_rows
from training.data_parallel import process_group
from training.fit import gradients
from training.qin import QIN

BATCH = 101  # odd: shares differ

if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as group:
        torch.manual_seed(5 + group.rank)  # joining must make the weights one
        network = QIN(SMALL, SIZES.model_copy(update={"dropout": 0.0})).train()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        group.join(network)
        mine = small_rows(BATCH, seed=1).batch(group.share(np.arange(BATCH)))
        gradients(network, mine, BATCH, group)
        if group.first:
            found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
            found |= {f"buffer.{name}": b.float() for name, b in network.named_buffers()}
            save_file(found, sys.argv[1])
