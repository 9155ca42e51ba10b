"""The network as published (``QIN_variety_v9`` run by FuxiCTR): the baseline of `bench`.

The same operations in the same order: every position of every row looks up its item and projects
its content embedding, and the attention projects every history item to a key and a value. The
parameters are shared with a given ``QIN``.

Shapes: B rows, L history slots, D item-vector width, A attention width, R rows per layer, X width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.schema import CategoricalList
from training.qin import QIN, Batch, FeatureVector, QuadraticLayer, TargetAttention


@dataclass(frozen=True, slots=True)
class Positions:
    """Input as of the published loader: features of every position, the target last."""

    items: dict[str, Tensor]  # feature name -> (B·(L+1),) | (B·(L+1), slots) | (B·(L+1), size)
    mask: Tensor  # (B, L) float32, 1 for a real history slot
    context: Tensor  # (B, context features) int64
    user: dict[str, Tensor] = field(default_factory=dict)  # feature name -> (B, …)
    request: dict[str, Tensor] = field(default_factory=dict)  # feature name -> (B,)

    @classmethod
    def of(cls, batch: Batch) -> Positions:
        """Gather the features of every position of a batch."""
        index = torch.cat([batch.history, batch.target.unsqueeze(1)], dim=1).flatten()
        dtype = next((v.dtype for v in batch.items.values() if v.is_floating_point()), None)
        mask = (batch.history != 0).to(dtype or torch.get_default_dtype())
        items = {name: value[index] for name, value in batch.items.items()}
        user = {n: v[batch.user] for n, v in batch.users.items() if batch.user is not None}
        return cls(items, mask, batch.context, user, batch.request)


class PublishedQIN(nn.Module):
    """The published order of multiplication over the parameters of ``network``."""

    def __init__(self, network: QIN) -> None:
        super().__init__()
        self.network = network

    def forward(self, positions: Positions) -> Tensor:
        """Positions in, one logit per row out, (B,)."""
        network, mask = self.network, positions.mask
        vectors = _vectors(network.item_vector, positions.items)  # (B·(L+1), D)
        vectors = vectors.view(len(mask), mask.shape[1] + 1, -1)
        target, history = vectors[:, -1], vectors[:, :-1]  # (B, D), (B, L, D)
        pool = _attention(network.attention, target, history, mask)  # (B, D)
        rooms = ((network.user_vector, positions.user), (network.request_vector, positions.request))
        c = [_vectors(vector, values) for vector, values in rooms if vector.features]
        c += [e(positions.context[:, i]) for i, e in enumerate(network.context.values())]
        x = torch.cat([*c, target, pool], dim=1)  # (B, X)
        for layer in network.layers:
            assert isinstance(layer, QuadraticLayer)
            x = _quadratic(layer, x)
        return network.fc(x).squeeze(1)  # type: ignore[no-any-return]


def _vectors(vector: FeatureVector, values: dict[str, Tensor]) -> Tensor:
    parts = []
    for feature in vector.features:
        value = values[feature.name]
        embedded = vector.embedding[feature.name](value)
        if isinstance(feature, CategoricalList):  # masked average pooling
            used = (value != 0).sum(dim=1, keepdim=True)
            embedded = embedded.sum(dim=1) / (used + 1e-12)
        parts.append(embedded)
    return torch.cat(parts, dim=1)


def _attention(attention: TargetAttention, target: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    query = attention.W_q(target).unsqueeze(1)  # (B, 1, A)
    key = attention.W_k(history)  # (B, L, A)
    value = attention.W_v(history)  # (B, L, A)
    score = torch.matmul(query, key.transpose(1, 2)) * attention.scale  # (B, 1, L)
    weight = F.relu(score * mask.unsqueeze(1))
    return attention.W_o(torch.matmul(weight, value).squeeze(1)) + target  # type: ignore[no-any-return]


def _quadratic(layer: QuadraticLayer, x: Tensor) -> Tensor:
    p, training = layer.dropout.p, layer.training
    h = F.dropout(layer.linear(x), p, training).view(-1, layer.rows, layer.width)  # (B, R, X)
    z = torch.einsum("bx,brx->bx", x, h)
    return x + F.dropout(layer.activation(layer.norm(z)), p, training)
