"""JinaBERT: BERT with symmetric ALiBi, a gated feed-forward layer and mean pooling.

Modules are named as the published tensors, so that ``state_dict`` is the published layout. Three
variants: ``base`` (English, German), ``qk_norm`` (Spanish: layer norm of queries and keys over the
whole hidden vector), ``code`` (that too; the second half gates, attention's output is added twice).
Source: arXiv 2310.19923 and 2402.17016; the public configurations and loaders of the checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from text.encoder.alibi import Biases
from text.encoder.sizes import EncoderSizes, Precision

RAREST = 1e-7  # least frequency of a token


class JinaBert(nn.Module):
    """Encodes token ids (B, L) to token vectors (B, L, D).

    ``precision`` is that of the products with weights; all else is in the weights' own.
    """

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.precision: Precision = "float32"
        self.embeddings = Embeddings(sizes)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.apply(self._initialise)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, L, D) for ids (B, L) of which the first ``lengths`` (B,) are a text's own."""
        return self.encode(self.embeddings(ids), lengths)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, L, D): the layers applied to embedded tokens (B, L, D)."""
        biases = Biases(self.sizes.heads, lengths, x.shape[1], x)
        with self.casting():
            for layer in self.encoder.layer:  # type: ignore[union-attr]
                x = layer(x, biases)
        return x

    def embed(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, D), the mean of each text's token vectors, special tokens included."""
        return mean_pooled(self(ids, lengths), lengths)

    @property
    def last_norm(self) -> nn.LayerNorm:
        """Return the norm that gives the tokens' vectors."""
        last = self.encoder.layer[-1]  # type: ignore[index]
        assert isinstance(last, Layer)
        norm = last.layer_norm_2 if last.is_code else last.mlp.layernorm
        assert isinstance(norm, nn.LayerNorm)
        return norm

    def casting(self) -> torch.autocast:
        """Return the context in which products with weights have ``precision``."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16")

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.sizes.initial_deviation)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def padding(lengths: Tensor, longest: int) -> Tensor:
    """Return (B, L): true beyond each text's length."""
    return torch.arange(longest, device=lengths.device)[None, :] >= lengths[:, None]


def mean_pooled(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, D), the means of token vectors (B, L, D) over each text's length (B,)."""
    own = ~padding(lengths, tokens.shape[1])[:, :, None]  # (B, L, 1)
    return tokens.masked_fill(~own, 0.0).sum(1) / lengths[:, None].clamp_min(1).to(tokens.dtype)


class Embeddings(nn.Module):
    """Sums the vectors of token and type 0, then normalises."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.vocabulary, sizes.hidden)
        self.token_type_embeddings = nn.Embedding(sizes.token_types, sizes.hidden)
        self.LayerNorm = _norm(sizes)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One transformer layer, norms after the sums (post-norm)."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.attention = Attention(sizes)
        self.mlp: nn.Module
        self.is_code = sizes.variant == "code"
        if self.is_code:
            self.mlp = CodeMLP(sizes)
            self.layer_norm_1, self.layer_norm_2 = _norm(sizes), _norm(sizes)
        else:
            self.mlp = GatedMLP(sizes)

    def forward(self, x: Tensor, biases: Biases) -> Tensor:
        attended = self.attention(x, biases)  # (B, L, D)
        if not self.is_code:
            return self.mlp(attended)  # type: ignore[no-any-return]
        residual = self.layer_norm_1(x + attended)
        return self.layer_norm_2(residual + self.mlp(residual))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention, its projection, the residual and the norm."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.add_module("self", SelfAttention(sizes))
        self.output = nn.Module()
        self.output.dense = nn.Linear(sizes.hidden, sizes.hidden)
        self.output.LayerNorm = _norm(sizes)

    def forward(self, x: Tensor, biases: Biases) -> Tensor:
        attended = self.output.dense(self.get_submodule("self")(x, biases))  # type: ignore[operator]
        return self.output.LayerNorm(x + attended)  # type: ignore[operator, no-any-return]


class SelfAttention(nn.Module):
    """softmax(q·k/√d − m·|i − j|)·v, per head."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.query = nn.Linear(sizes.hidden, sizes.hidden)
        self.key = nn.Linear(sizes.hidden, sizes.hidden)
        self.value = nn.Linear(sizes.hidden, sizes.hidden)
        self.is_normalised = sizes.variant != "base"
        if self.is_normalised:
            self.layer_norm_q, self.layer_norm_k = _norm(sizes), _norm(sizes)

    def forward(self, x: Tensor, biases: Biases) -> Tensor:
        q, k, v = self.projected(x)  # (B, H, L, D/H) each
        with torch.autocast("cpu", enabled=False):  # its backward pass is slower in bfloat16
            attended = [
                F.scaled_dot_product_attention(
                    q[:, :, start : start + biases.block], k, v, biases.rows(start)
                )
                for start in range(0, x.shape[1], biases.block)
            ]
        whole = attended[0] if len(attended) == 1 else torch.cat(attended, 2)
        return whole.transpose(1, 2).reshape(x.shape)

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by heads, of one product with the three weights."""
        parts = (self.query, self.key, self.value)
        weight, bias = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias")
        )
        whole = F.linear(x, weight, bias).to(x.dtype)  # (B, L, 3·D)
        if self.is_normalised:
            q, k, v = whole.chunk(3, -1)
            whole = torch.cat((self.layer_norm_q(q), self.layer_norm_k(k), v), -1)
        q, k, v = whole.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v


class GatedMLP(nn.Module):
    """layernorm(x + W_o(act(g)·u)) with g | u = W x: the first half gates."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(sizes.hidden, 2 * sizes.intermediate, bias=False)
        self.wo = nn.Linear(sizes.intermediate, sizes.hidden)
        self.layernorm = _norm(sizes)
        self.activation = _activation(sizes)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gated_layers(x).chunk(2, -1)
        return self.layernorm(x + self.wo(self.activation(gate) * up))  # type: ignore[no-any-return]


class CodeMLP(nn.Module):
    """W_down(u·act(g)) with u | g = W x: the second half gates."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.up_gated_layer = nn.Linear(sizes.hidden, 2 * sizes.intermediate, bias=False)
        self.down_layer = nn.Linear(sizes.intermediate, sizes.hidden)
        self.activation = _activation(sizes)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = self.up_gated_layer(x).chunk(2, -1)
        return self.down_layer(up * self.activation(gate))  # type: ignore[no-any-return]


class MaskedLanguageHead(nn.Module):
    """Predicts tokens from token vectors; its product is tied to the word table."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.predictions = nn.Module()
        self.predictions.transform = nn.Module()
        self.predictions.transform.dense = nn.Linear(sizes.hidden, sizes.hidden)
        self.predictions.transform.LayerNorm = _norm(sizes)
        self.predictions.bias = nn.Parameter(torch.zeros(sizes.vocabulary))
        nn.init.normal_(self.predictions.transform.dense.weight, std=sizes.initial_deviation)
        nn.init.zeros_(self.predictions.transform.dense.bias)

    def start_from(self, frequencies: Tensor) -> None:
        """Set the bias to the logarithms of the tokens' frequencies (V,), which sum to 1.

        A bias that starts at 0 moves by at most the learning rate a step.
        """
        with torch.no_grad():
            self.predictions.bias.copy_(frequencies.clamp_min(RAREST).log())  # type: ignore[operator]

    def forward(self, tokens: Tensor, words: Tensor) -> Tensor:
        """Return logits (N, V) for token vectors (N, D) and the word table (V, D)."""
        transform = self.predictions.transform
        x = transform.LayerNorm(F.gelu(transform.dense(tokens)))  # type: ignore[union-attr, operator]
        return F.linear(x, words, self.predictions.bias)  # type: ignore[arg-type]


def _norm(sizes: EncoderSizes) -> nn.LayerNorm:
    return nn.LayerNorm(sizes.hidden, eps=sizes.norm_epsilon)


def _activation(sizes: EncoderSizes) -> nn.Module:
    return nn.GELU() if sizes.activation == "gelu" else nn.ReLU()
