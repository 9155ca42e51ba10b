"""Data-parallel training over processes: ``torchrun --nproc-per-node=2 -m training fit …``.

Every process holds the whole network and takes its share of each batch. Gradients are summed and
batch norm covers the whole batch (torch's SyncBatchNorm requires GPUs), so that n processes compute
the same as one, up to rounding and dropout masks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.autograd import Function

from training.qin import QIN, QuadraticLayer


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the process group of torchrun (``WORLD_SIZE``), else yield a group of one.

    Within another such block the group is that one's: gloo can wait for ever for a second group,
    since the processes find each other by the same keys as for the first.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup(rank=0, count=1)
        return
    if distributed.is_initialized():
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
        return
    distributed.init_process_group("gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


class ProcessGroup:
    """A group of ``count`` processes, this one with ``rank``."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    @property
    def first(self) -> bool:
        """Whether this process evaluates, prints and writes."""
        return self.rank == 0

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Select this process's part of a batch; sizes differ by one row at most."""
        return np.array_split(rows, self.count)[self.rank]

    def join(self, network: QIN) -> None:
        """Broadcast the weights and make batch norm cover all processes."""
        if self.count == 1:
            return
        for tensor in network.state_dict().values():
            distributed.broadcast(tensor, src=0)
        for layer in network.layers:
            assert isinstance(layer, QuadraticLayer)
            layer.norm = _SharedBatchNorm.of(layer.norm)

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum gradients over processes; each loss is its rows' share of the batch's mean."""
        if self.count > 1:
            for parameter in network.parameters():
                if parameter.grad is not None:
                    if parameter.grad.is_sparse:
                        parameter.grad = parameter.grad.coalesce()
                    distributed.all_reduce(parameter.grad)

    def sum(self, value: float) -> float:
        """Sum a number over processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total)

    def agree(self, value: float) -> float:
        """Broadcast the first process's number."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(shared, src=0)
        return float(shared)


class _SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the batches of all processes."""

    @classmethod
    def of(cls, norm: nn.BatchNorm1d) -> _SharedBatchNorm:
        """Convert a layer, sharing its parameters and statistics."""
        shared = cls(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        shared.weight, shared.bias = norm.weight, norm.bias
        shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
        shared.num_batches_tracked = norm.num_batches_tracked
        return shared

    def forward(self, x: Tensor) -> Tensor:
        """(B, X) -> (B, X)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        local = torch.cat([x.sum(0), x.new_tensor([float(len(x))])])
        summed = _sum_over_processes(local)
        rows = summed[-1].detach()
        mean = summed[:-1] / rows  # (X,)
        variance = _sum_over_processes((x - mean).square().sum(0)) / rows  # (X,)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)
        normalised: Tensor = (x - mean) * torch.rsqrt(variance + self.eps)
        return normalised * self.weight + self.bias


class _Sum(Function):
    """Differentiable sum over processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def _sum_over_processes(x: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return summed
