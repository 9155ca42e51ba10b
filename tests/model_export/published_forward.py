"""The published forward of either variant in float64, over the tensors of the authors' file.

``naive_published`` once more, for thousands of cases: products instead of loops. Shares nothing
with the project's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.model_export.naive_published import CONTENT, TABLE, USER

Real = NDArray[np.float64]
Rows = Mapping[str, NDArray[Any]] | NDArray[np.void]  # item features by name; indices are known
LEVELS = ("likes_level", "views_level")
TOGETHER = 1024  # candidates of one product


class PublishedForward:
    """D item vector, X network, C candidates, L history items."""

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.state = {  # embeddings become float64 row by row
            name: tensor if name.startswith(TABLE) else tensor.astype(np.float64)
            for name, tensor in state.items()
        }
        self.layers = [k for k in state if k.startswith("qnn.layer.") and k.endswith(".weight")]

    def x(
        self, candidates: Rows, history: Rows, user: int, levels: Mapping[str, NDArray[Any]]
    ) -> Real:
        """(C, X): inputs of the first layer. ``levels`` (C,) replace the candidates' own in c."""
        target, past = self._items(candidates), self._items(history)  # (C, D), (L, D)
        query = target @ self.state["attention_layers.W_q.weight"].T
        keys = past @ self.state["attention_layers.W_k.weight"].T
        weight = np.maximum(query @ keys.T / np.sqrt(query.shape[1]), 0)
        mixed = weight @ (past @ self.state["attention_layers.W_v.weight"].T)
        pooled = mixed @ self.state["attention_layers.W_o.weight"].T + target
        if "attention_layers.W_o.bias" in self.state:
            pooled = pooled + self.state["attention_layers.W_o.bias"]
        own = {name: candidates[name] for name in LEVELS} | dict(levels)
        block = [self._table(name, own[name]) for name in LEVELS]
        if USER in self.state:
            block.insert(0, np.repeat(self._table("user_id", np.array([user])), len(target), 0))
        return np.concatenate([*block, target, pooled], 1)

    def probabilities(self, x: Real) -> Real:
        parts = [self._probabilities(x[at : at + TOGETHER]) for at in range(0, len(x), TOGETHER)]
        return np.concatenate(parts)

    def _probabilities(self, x: Real) -> Real:
        C, X = x.shape
        for number in range(len(self.layers)):
            linear, norm = f"qnn.layer.{number}.linear.0", f"qnn.norm.{number}"
            h = x @ self.state[f"{linear}.weight"].T + self.state[f"{linear}.bias"]
            z = x * h.reshape(C, -1, X).sum(1)
            deviation = np.sqrt(self.state[f"{norm}.running_var"] + 1e-5)
            z = (z - self.state[f"{norm}.running_mean"]) / deviation
            z = z * self.state[f"{norm}.weight"] + self.state[f"{norm}.bias"]
            x = x + np.where(z > 0, z, self.state[f"qnn.activation.{number}.weight"] * z)
        logit = x @ self.state["qnn.fc.weight"][0] + self.state["qnn.fc.bias"]
        probability: Real = 1 / (1 + np.exp(-logit))
        return probability

    def _items(self, rows: Rows) -> Real:
        tags = rows["item_tags"]
        used = (tags != 0).sum(1, keepdims=True)
        embedded = np.where((tags != 0)[:, :, None], self._table("item_tags", tags), 0.0)
        content = np.asarray(rows["item_emb_d128"], np.float64) @ self.state[CONTENT].T
        parts = [
            self._table("item_id", rows["item_id"]),
            embedded.sum(1) / (used + 1e-12),
            content,
        ]
        if USER in self.state:
            parts = [*(self._table(name, rows[name]) for name in LEVELS), *parts]
        return np.concatenate(parts, 1)

    def _table(self, name: str, index: NDArray[Any]) -> Real:
        return self.state[f"{TABLE}.{name}.weight"][index].astype(np.float64)
