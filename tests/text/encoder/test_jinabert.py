"""The network against a numpy forward pass in float64, every variant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.encoder import forward
from text.encoder import alibi
from text.encoder.jinabert import JinaBert, MaskedLanguageHead, mean_pooled
from text.encoder.sizes import EncoderSizes, Variant

VARIANTS: tuple[Variant, ...] = ("base", "qk_norm", "code")


def random_network(sizes: EncoderSizes, seed: int) -> JinaBert:
    """Every tensor random, norms and biases too, so that none is left out unseen."""
    network = JinaBert(sizes).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.3
            tensor.copy_(noise + ("orm" in name and name.endswith("weight")))
    return network


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


@settings(max_examples=40, deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    heads=st.integers(1, 7),
    width=st.integers(1, 5),
    layers=st.integers(1, 3),
    activation=st.sampled_from(("gelu", "relu")),
    lengths=st.lists(st.integers(1, 23), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_a_padded_batch_is_the_numpy_forward_of_each_text(
    variant: Variant,
    heads: int,
    width: int,
    layers: int,
    activation: str,
    lengths: list[int],
    seed: int,
) -> None:
    sizes = EncoderSizes(
        variant=variant, vocabulary=300, hidden=heads * width * 2, heads=heads, layers=layers,
        intermediate=7, activation=activation, norm_epsilon=1e-6,
    )  # fmt: skip
    network = random_network(sizes, seed)
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 300, (len(lengths), max(lengths)))
    with torch.inference_mode():
        tokens = network(torch.from_numpy(ids), torch.tensor(lengths))
        pooled = mean_pooled(tokens, torch.tensor(lengths)).numpy()
    tensors = arrays(network)
    for text, length in enumerate(lengths):
        expected = forward.encode(
            tensors, ids[text, :length], heads, 1e-6, relu=activation == "relu"
        )
        assert np.abs(tokens[text, :length].numpy() - expected).max() <= 1e-10
        assert np.abs(pooled[text] - expected.mean(0)).max() <= 1e-10


@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_of_a_long_text_are_the_whole(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = EncoderSizes(
        variant=variant, vocabulary=300, hidden=12, heads=3, layers=2, intermediate=8
    )
    network = random_network(sizes, 3)
    ids = torch.from_numpy(np.random.default_rng(3).integers(0, 300, (2, 70)))
    lengths = torch.tensor([70, 41])
    with torch.inference_mode():
        whole = network.embed(ids, lengths)
        monkeypatch.setattr(alibi, "WHOLE", 32)
        monkeypatch.setattr(alibi, "BLOCK", 16)
        assert (network.embed(ids, lengths) - whole).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (3, [2.0**-4, 2.0**-8, 2.0**-2]),
        (4, [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]),
        (12, [2.0**-n for n in range(1, 9)] + [2.0**-n for n in (0.5, 1.5, 2.5, 3.5)]),
    ],
)
def test_slopes_are_the_published(heads: int, expected: list[float]) -> None:
    assert alibi.slopes(heads) == pytest.approx(expected, rel=1e-15)


@given(heads=st.integers(1, 64))
def test_slopes_of_any_number_of_heads(heads: int) -> None:
    assert alibi.slopes(heads) == pytest.approx(forward.head_slopes(heads), rel=1e-12)


def test_the_masked_language_head_is_tied_to_the_words() -> None:
    sizes = EncoderSizes(vocabulary=300, hidden=12, heads=3, layers=1, intermediate=8)
    network, head = random_network(sizes, 5), MaskedLanguageHead(sizes).double()
    with torch.no_grad():
        for tensor in head.parameters():
            tensor.add_(torch.randn(tensor.shape, dtype=torch.float64) * 0.2)
    tensors = arrays(network) | {f"cls.{name}": x for name, x in arrays(head).items()}
    ids = np.random.default_rng(5).integers(0, 300, 9)
    with torch.inference_mode():
        tokens = network(torch.from_numpy(ids)[None], torch.tensor([9]))[0]
        logits = head(tokens, network.embeddings.word_embeddings.weight).numpy()
    expected = forward.masked_logits(tensors, forward.encode(tensors, ids, 3))
    assert np.abs(logits - expected).max() <= 1e-10


def test_published_names_of_base_german() -> None:
    """161 million parameters: 61,056 tokens, 12 layers of 768."""
    with torch.device("meta"):
        network = JinaBert(
            EncoderSizes(vocabulary=61_056, hidden=768, heads=12, layers=12, intermediate=3072)
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["encoder.layer.11.mlp.gated_layers.weight"] == (6144, 768)
    assert shapes["encoder.layer.0.attention.output.LayerNorm.bias"] == (768,)
    assert "encoder.layer.0.attention.self.layer_norm_q.weight" not in shapes
    assert 159e6 < sum(tensor.numel() for tensor in network.parameters()) < 162e6
