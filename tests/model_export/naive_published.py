"""The published forward pass once more, from the paper and the checkpoint's own tensors: loops over
candidates, history items, heads and rows, in float64, with nothing shared with the project's code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TABLE = "embedding_layer.embedding_layer.embedding_layers"
CONTENT = "embedding_layer.embedding_layer.feature_encoders.item_emb_d128.weight"
USER = f"{TABLE}.user_id.weight"  # of the level variant alone
Item = Mapping[str, Any]  # item_id, item_tags (slots,), item_emb_d128 (size,), likes_level, …


def item_vector(w: Mapping[str, np.ndarray], item: Item) -> np.ndarray:
    tags = [w[f"{TABLE}.item_tags.weight"][t] for t in item["item_tags"] if t != 0]
    mean = np.zeros(w[f"{TABLE}.item_tags.weight"].shape[1])
    for tag in tags:
        mean = mean + tag
    mean = mean / (len(tags) + 1e-12)
    content = w[CONTENT] @ np.asarray(item["item_emb_d128"], float)
    parts = [w[f"{TABLE}.item_id.weight"][item["item_id"]], mean, content]
    return np.concatenate([*levels(w, item), *parts] if USER in w else parts)


def levels(w: Mapping[str, np.ndarray], item: Item) -> list[np.ndarray]:
    return [w[f"{TABLE}.{name}.weight"][item[name]] for name in ("likes_level", "views_level")]


def probability(
    w: Mapping[str, np.ndarray],
    candidate: Item,
    history: Sequence[Item],
    user: int = 0,
    context: Item | None = None,
) -> float:
    """One candidate, one history (padding left out: its attention is nothing), and in the level
    variant one user. ``context`` replaces the candidate's own levels in its own block."""
    target = item_vector(w, candidate)
    query = w["attention_layers.W_q.weight"] @ target
    mixed = np.zeros(len(query))
    for past in history:
        vector = item_vector(w, past)
        key = w["attention_layers.W_k.weight"] @ vector
        score = max(0.0, float(query @ key) / math.sqrt(len(query)))
        mixed = mixed + score * (w["attention_layers.W_v.weight"] @ vector)
    pooled = w["attention_layers.W_o.weight"] @ mixed + target
    pooled = pooled + w.get("attention_layers.W_o.bias", 0.0)
    own = [w[USER][user]] if USER in w else []
    x = np.concatenate([*own, *levels(w, context or candidate), target, pooled])
    number = 0
    while f"qnn.layer.{number}.linear.0.weight" in w:
        h = w[f"qnn.layer.{number}.linear.0.weight"] @ x + w[f"qnn.layer.{number}.linear.0.bias"]
        z = np.zeros_like(x)
        for row in range(len(h) // len(x)):
            for column in range(len(x)):
                z[column] += x[column] * h[row * len(x) + column]
        norm = f"qnn.norm.{number}"
        z = (z - w[f"{norm}.running_mean"]) / np.sqrt(w[f"{norm}.running_var"] + 1e-5)
        z = z * w[f"{norm}.weight"] + w[f"{norm}.bias"]
        slope = float(w[f"qnn.activation.{number}.weight"][0])
        x = x + np.array([value if value > 0 else slope * value for value in z])
        number += 1
    logit = float(w["qnn.fc.weight"][0] @ x + w["qnn.fc.bias"][0])
    return 1 / (1 + math.exp(-logit))
