"""The encoder's forward pass and losses written with numpy in float64, apart from the product.

Takes a published state dict as arrays by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def head_slopes(heads: int) -> list[float]:
    """As in the published loaders: start = 2^(−2^−(log2 n − 3)), powers of start."""
    exponent = math.log2(heads)
    if exponent.is_integer():
        start = 2.0 ** -(2.0 ** -(exponent - 3))
        return [start * start**power for power in range(heads)]
    below = 2 ** math.floor(exponent)
    return head_slopes(below) + head_slopes(2 * below)[0::2][: heads - below]


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def gelu(x: Array) -> Array:
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def encode(
    tensors: Mapping[str, Array],
    ids: NDArray[np.int64],
    heads: int,
    epsilon: float = 1e-12,
    relu: bool = False,
) -> Array:
    """Token vectors (L, D) of one text's ids (L,); the variant is read off the names."""
    act = (lambda x: np.maximum(x, 0.0)) if relu else gelu

    def linear(x: Array, name: str) -> Array:
        return x @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", 0.0)

    def norm(x: Array, name: str) -> Array:
        return layer_norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)

    words, types = (tensors[f"embeddings.{n}_embeddings.weight"] for n in ("word", "token_type"))
    x = norm(words[ids] + types[0], "embeddings.LayerNorm")
    length, hidden = x.shape
    width = hidden // heads
    distance = np.abs(np.arange(length)[:, None] - np.arange(length)[None, :])
    number = 0
    while f"encoder.layer.{number}.attention.self.query.weight" in tensors:
        at = f"encoder.layer.{number}"
        q, k, v = (linear(x, f"{at}.attention.self.{n}") for n in ("query", "key", "value"))
        if f"{at}.attention.self.layer_norm_q.weight" in tensors:
            q = norm(q, f"{at}.attention.self.layer_norm_q")
            k = norm(k, f"{at}.attention.self.layer_norm_k")
        heads_out = []
        for head, slope in enumerate(head_slopes(heads)):
            part = slice(head * width, (head + 1) * width)
            logits = q[:, part] @ k[:, part].T / math.sqrt(width) - slope * distance
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            heads_out.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        attended = norm(
            x + linear(np.concatenate(heads_out, -1), f"{at}.attention.output.dense"),
            f"{at}.attention.output.LayerNorm",
        )
        if f"{at}.mlp.up_gated_layer.weight" in tensors:
            residual = norm(x + attended, f"{at}.layer_norm_1")
            both = linear(residual, f"{at}.mlp.up_gated_layer")
            half = both.shape[-1] // 2
            fed = linear(both[:, :half] * act(both[:, half:]), f"{at}.mlp.down_layer")
            x = norm(residual + fed, f"{at}.layer_norm_2")
        else:
            both = linear(attended, f"{at}.mlp.gated_layers")
            half = both.shape[-1] // 2
            fed = linear(act(both[:, :half]) * both[:, half:], f"{at}.mlp.wo")
            x = norm(attended + fed, f"{at}.mlp.layernorm")
        number += 1
    return x


def masked_logits(tensors: Mapping[str, Array], tokens: Array, epsilon: float = 1e-12) -> Array:
    """Logits (L, V) of the masked-language head."""
    at = "cls.predictions"
    dense = (
        tokens @ tensors[f"{at}.transform.dense.weight"].T + tensors[f"{at}.transform.dense.bias"]
    )
    x = layer_norm(
        gelu(dense),
        tensors[f"{at}.transform.LayerNorm.weight"],
        tensors[f"{at}.transform.LayerNorm.bias"],
        epsilon,
    )
    return x @ tensors["embeddings.word_embeddings.weight"].T + tensors[f"{at}.bias"]


def cosines(first: Array, second: Array) -> Array:
    """(N, M) cosines of rows."""
    first = first / np.linalg.norm(first, axis=-1, keepdims=True)
    return first @ (second / np.linalg.norm(second, axis=-1, keepdims=True)).T


def info_nce(q: Array, p: Array, temperature: float) -> float:
    e = np.exp(cosines(q, p) / temperature)
    return float(-np.mean(np.log(np.diag(e) / e.sum(1))))


def pairs(q: Array, p: Array, temperature: float) -> float:
    return info_nce(q, p, temperature) + info_nce(p, q, temperature)


def hard_negatives(q: Array, p: Array, n: Array, temperature: float) -> float:
    """``n`` is (k, m, D): the sums run over every passage and every negative of the batch."""
    own = np.exp(cosines(q, p) / temperature)
    against = sum(np.exp(cosines(q, n[:, j]) / temperature) for j in range(n.shape[1]))
    return float(-np.mean(np.log(np.diag(own) / (own + against).sum(1)))) + info_nce(
        p, q, temperature
    )


def correlation(q: Array, p: Array, t: Array) -> float:
    c = np.diag(cosines(q, p))
    return -float(np.corrcoef(c, t)[0, 1])
