"""The Quadratic Interest Network (arXiv 2504.17699; public code ``QIN_variety_v9``).

Same parameters and same gradients as published. Only the order of multiplication differs where
that saves work: the L history items are never projected one by one, because

    (W_q t)·(W_k s_j) = (W_kᵀ W_q t)·s_j      and      W_o Σ a_j W_v s_j = W_o W_v Σ a_j s_j.

Shapes: B rows of a batch, U distinct items in it, L history slots, D item-vector width,
A attention width, X network width, R rows per quadratic layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema, Numeric
from training.operations import Dropout, interest, linear
from training.recipe import InitialWeights
from training.sizes import QINSizes as QINSizes


@dataclass(frozen=True, slots=True)
class Batch:
    """Training rows over their distinct items and users.

    Item 0 of ``items`` is the all-zero padding item, user 0 of ``users`` the unknown user.
    """

    items: dict[str, Tensor]  # feature name -> (U,) | (U, slots) int64, (U, size) float32
    target: Tensor  # (B,) int64 into items
    history: Tensor  # (B, L) int64 into items, 0 where there is none
    context: Tensor  # (B, context features) int64
    label: Tensor  # (B,) float32
    users: dict[str, Tensor] = field(default_factory=dict)  # as ``items``, (V, …)
    user: Tensor | None = None  # (B,) int64 into users; where the schema has user features
    request: dict[str, Tensor] = field(default_factory=dict)
    """Feature name -> (B,): int64, 0 where missing; a ``Numeric`` float32, NaN where missing."""


class Standardised(nn.Module):
    """A number (N,) -> (N, width): its difference from the mean in deviations, projected."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(1, width, bias=False)
        self.register_buffer("mean", torch.zeros(()))  # of the training rows; set before training
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, value: Tensor) -> Tensor:
        standard = (value - self.mean) / self.deviation
        return self.projection(standard.nan_to_num(nan=0.0).unsqueeze(1))  # type: ignore[no-any-return]


class FeatureVector(nn.Module):
    """Features of items, users or requests -> their embeddings side by side, in schema order."""

    def __init__(self, features: Sequence[Categorical | CategoricalList | Dense | Numeric]) -> None:
        super().__init__()
        self.features = tuple(features)
        self.embedding = nn.ModuleDict()
        for feature in features:
            match feature:
                case Numeric():
                    self.embedding[feature.name] = Standardised(feature.width)
                case Categorical() | CategoricalList():
                    table = nn.Embedding(feature.vocabulary, feature.width, padding_idx=0)
                    self.embedding[feature.name] = table
                case Dense():
                    projection = nn.Linear(feature.size, feature.width, bias=False)
                    self.embedding[feature.name] = projection

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        """Feature name -> (N, …) in, (N, Σ width) out."""
        parts = []
        for feature in self.features:
            value = values[feature.name]
            table = self.embedding[feature.name]
            if isinstance(feature, CategoricalList):  # masked mean over the slots in use
                assert isinstance(table, nn.Embedding)
                used = (value != 0).sum(dim=1, keepdim=True)  # (U, 1)
                total = F.embedding_bag(
                    value, table.weight, mode="sum", padding_idx=0, sparse=table.sparse
                )
                parts.append(total / (used + 1e-12))
            else:
                parts.append(table(value))
        return torch.cat(parts, dim=1)


class TargetAttention(nn.Module):
    """Adaptive sparse target attention: ReLU in place of softmax, one head, no bias, no dropout."""

    def __init__(self, vector_width: int, attention_width: int, output_bias: bool = False) -> None:
        super().__init__()
        self.scale = attention_width**-0.5
        self.W_q = nn.Linear(vector_width, attention_width, bias=False)
        self.W_k = nn.Linear(vector_width, attention_width, bias=False)
        self.W_v = nn.Linear(vector_width, attention_width, bias=False)
        self.W_o = nn.Linear(attention_width, vector_width, bias=output_bias)

    def forward(self, target: Tensor, vectors: Tensor, index: Tensor) -> Tensor:
        """target (B, D), vectors (U, D), index (B, L) into them, 0 for none -> pool (B, D)."""
        query = self.W_q(target) @ self.W_k.weight * self.scale  # (B, D): W_kᵀ W_q t / √A
        pooled = interest(query, vectors, index)  # (B, D): Σ a_j s_j
        return self.W_o(self.W_v(pooled)) + target  # type: ignore[no-any-return]


class QuadraticLayer(nn.Module):
    """x ← x + dropout(PReLU(BatchNorm(x ⊙ Σ_r dropout(h)_r))), h = W x + b seen as (R, X)."""

    def __init__(self, width: int, rows: int, dropout: float) -> None:
        super().__init__()
        self.width, self.rows = width, rows
        self.linear = nn.Linear(width, rows * width)  # row r is outputs r·X … (r+1)·X−1
        self.norm = nn.BatchNorm1d(width)
        self.activation = nn.PReLU()  # one scalar slope
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(linear(x, self.linear)).view(-1, self.rows, self.width)  # (B, R, X)
        z = x * h.sum(dim=1)  # (B, X)
        return x + self.dropout(self.activation(self.norm(z)))  # type: ignore[no-any-return]


class QIN(nn.Module):
    """The whole network: a batch in, one logit a row out."""

    def __init__(
        self,
        schema: FeatureSchema,
        sizes: QINSizes | None = None,
        initial: InitialWeights | None = None,
    ) -> None:
        super().__init__()
        self.schema, self.sizes = schema, sizes or QINSizes()
        width = schema.network_width
        self.user_vector = FeatureVector(schema.user)
        self.request_vector = FeatureVector(schema.request)
        self.item_vector = FeatureVector(schema.item)
        self.context = nn.ModuleDict()
        for feature in schema.context:
            table = nn.Embedding(feature.vocabulary, feature.width, padding_idx=0)
            if feature.name in schema.shared:
                table = self.item_vector.embedding[feature.name]  # type: ignore[assignment]
            self.context[feature.name] = table
        self.attention = TargetAttention(
            schema.item_vector_width, self.sizes.attention_width, self.sizes.output_bias
        )
        self.layers = nn.ModuleList(
            QuadraticLayer(width, self.sizes.rows, self.sizes.dropout)
            for _ in range(self.sizes.layers)
        )
        self.fc = nn.Linear(width, 1)
        self.reset_parameters(initial or InitialWeights())

    def reset_parameters(self, initial: InitialWeights) -> None:
        """Draw embeddings from a normal distribution, linears Xavier normal with zero bias."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=initial.embedding_deviation)
                with torch.no_grad():
                    module.weight[0].zero_()  # row 0 is padding
            elif isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, gain=initial.linear_gain)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, initial.prelu_slope)

    def forward(self, batch: Batch) -> Tensor:
        vectors = self.item_vector(batch.items)  # (U, D)
        target = F.embedding(batch.target, vectors)  # (B, D)
        pool = self.attention(target, vectors, batch.history)  # (B, D)
        x = torch.cat(
            [*self.context_vectors(batch), target, pool], dim=1
        )  # (B, X) = [c | t | pool]
        for layer in self.layers:
            x = layer(x)
        return self.fc(x).squeeze(1)  # type: ignore[no-any-return]

    def context_vectors(self, batch: Batch) -> list[Tensor]:
        """Embed the parts of c: user, request, the candidate's context; each (B, width)."""
        parts: list[Tensor] = []
        if self.schema.user:
            assert batch.user is not None, "the schema has user features"
            parts.append(F.embedding(batch.user, self.user_vector(batch.users)))
        if self.schema.request:
            parts.append(self.request_vector(batch.request))
        embedded = (e(batch.context[:, i]) for i, e in enumerate(self.context.values()))
        return [*parts, *embedded]
