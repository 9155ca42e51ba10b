"""Takes the steps of the optimiser: regulariser, clipped gradients, Adam.

Tables of user features of more than ``touched_rows_above`` rows are updated by the rows of a batch
alone. Their gradients are sparse; regulariser and Adam's moments are applied to a row only when it
is in a batch (torch's SparseAdam). This differs from the published recipe, where rows that are in
no batch decay and move on by their moments; the time of a step no longer depends on the number of
users.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from training.qin import QIN
from training.recipe import Recipe


class Optimiser:
    """Adam over the weights of a network, SparseAdam over its large user tables."""

    def __init__(self, network: QIN, recipe: Recipe) -> None:
        self.network, self.recipe = network, recipe
        touched = []
        for table in network.user_vector.embedding.values():
            if isinstance(table, nn.Embedding):
                table.sparse = table.num_embeddings > recipe.touched_rows_above
                touched += [table.weight] if table.sparse else []
        names = {id(weight) for weight in touched}
        dense = [weight for weight in network.parameters() if id(weight) not in names]
        betas = (recipe.adam.beta1, recipe.adam.beta2)
        rate, epsilon = recipe.learning_rate, recipe.adam.epsilon
        self.all = torch.optim.Adam(dense, lr=rate, betas=betas, eps=epsilon)
        self.touched: torch.optim.SparseAdam | None = None
        if touched:
            self.touched = torch.optim.SparseAdam(touched, lr=rate, betas=betas, eps=epsilon)

    @property
    def learning_rate(self) -> float:
        return float(self.all.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        groups = self.touched.param_groups if self.touched else []
        for group in (*self.all.param_groups, *groups):
            group["lr"] = rate

    @torch.no_grad()
    def step(self) -> None:
        """Add the regulariser to the gradients, clip them and update the weights."""
        # The gradient of (λ/2)·‖W‖², added here rather than through the loss: one pass, not three.
        for weight in regularised(self.network):
            assert weight.grad is not None
            if weight.grad.is_sparse:
                weight.grad = weight.grad.coalesce()
                rows = weight[weight.grad.indices()[0]]
            else:
                rows = weight
            _values(weight.grad).add_(rows, alpha=self.recipe.embedding_regulariser)
        gradients = [_values(w.grad) for w in self.network.parameters() if w.grad is not None]
        norm = get_total_norm(gradients)
        scale = (self.recipe.gradient_clip / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
        self.all.step()
        if self.touched:
            self.touched.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """The state of Adam, and of SparseAdam where there is one under ``touched``."""
        touched = {"touched": self.touched.state_dict()} if self.touched else {}
        return {**self.all.state_dict(), **touched}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = dict(state)
        touched = state.pop("touched", None)
        self.all.load_state_dict(state)
        if self.touched and touched:
            self.touched.load_state_dict(touched)


def regularised(network: QIN) -> list[nn.Parameter]:
    """Select all embedding tables and the projections of dense features, each once."""
    rooms = (network.item_vector, network.context, network.user_vector, network.request_vector)
    return list(dict.fromkeys(p for room in rooms for p in room.parameters()))


def _values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient: of a sparse one, those of its rows."""
    return gradient.values() if gradient.is_sparse else gradient
