"""Gradients of one batch, by as many processes as torchrun says.

With ``users``, the table of users has sparse gradients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.training.worlds import SIZES, small_rows, small_rows_of_users
from training.loop.data_parallel import process_group
from training.loop.fit import gradients
from training.loop.optimiser import Optimiser
from training.qin import QIN
from training.recipe import Recipe

BATCH = 101  # odd: shares differ


def one_step(out: Path, *, users: bool) -> None:
    with process_group() as group:
        torch.manual_seed(5 + group.rank)  # joining must make the weights one
        rows = small_rows_of_users(BATCH, seed=1, users=60) if users else small_rows(BATCH, seed=1)
        network = QIN(rows.schema, SIZES.model_copy(update={"dropout": 0.0})).train()
        Optimiser(network, Recipe(touched_rows_above=50))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        group.join(network)
        mine = rows.batch(group.share(np.arange(BATCH)))
        gradients(network, mine, BATCH, group)
        if group.first:
            found = {
                name: p.grad.to_dense()
                for name, p in network.named_parameters()
                if p.grad is not None
            }
            found |= {f"buffer.{name}": b.float() for name, b in network.named_buffers()}
            save_file(found, out)
