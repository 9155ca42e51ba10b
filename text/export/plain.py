"""Exports the network as it is, by PyTorch's exporter: the baseline of the benchmark."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from text.encoder.alibi import slopes
from text.encoder.jinabert import JinaBert, SelfAttention

OPSET = 20  # the first with Gelu


def save_plain(network: JinaBert, file: Path) -> None:
    """Write the graph ids (B, L), mask (B, L) -> embedding (B, D), unit vectors."""
    example = torch.ones(2, 7, dtype=torch.long)
    with warnings.catch_warnings():  # the exporter without onnxscript is announced to go
        warnings.simplefilter("ignore")
        torch.onnx.export(
            PlainEncoder(network).eval(),
            (example, example),
            str(file),
            input_names=["ids", "mask"],
            output_names=["embedding"],
            dynamic_axes={name: {0: "B", 1: "L"} for name in ("ids", "mask")},
            opset_version=OPSET,
            dynamo=False,
        )


class PlainEncoder(nn.Module):
    """The network with attention in one piece, of a length that the exporter leaves open."""

    def __init__(self, network: JinaBert) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).float()
        for layer in self.network.encoder.layer:  # type: ignore[union-attr]
            whole = PlainAttention(layer.attention.get_submodule("self"))
            layer.attention.add_module("self", whole)
        self.slopes = -torch.tensor(slopes(network.sizes.heads))[:, None, None]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.network.embeddings(ids)  # (B, L, D)
        position = torch.arange(ids.shape[1])
        linear = self.slopes * (position[:, None] - position).abs()  # (H, L, L)
        own = mask.to(x.dtype)
        bias = linear + (own[:, None, None, :] - 1) * 1e9  # (B, H, L, L)
        for layer in self.network.encoder.layer:  # type: ignore[union-attr]
            x = layer(x, bias)
        total = (x * own[:, :, None]).sum(1)
        return F.normalize(total / own.sum(1, keepdim=True), dim=-1)


class PlainAttention(nn.Module):
    """Self-attention over all tokens at once, padding masked by its bias."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.attention.projected(x)  # (B, H, L, D/H) each
        attended = F.scaled_dot_product_attention(q, k, v, bias)
        return attended.transpose(1, 2).reshape(x.shape)
