"""Checkpoints in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.text.encoder.test_jinabert import VARIANTS, random_network
from text.encoder import checkpoint
from text.encoder.jinabert import MaskedLanguageHead
from text.encoder.sizes import EncoderSizes, Variant
from text.tokenizer import TextTokenizer

TEXTS = [f"word{number} and the others" for number in range(50)]


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 290)


def small(variant: Variant) -> EncoderSizes:
    return EncoderSizes(
        variant=variant, vocabulary=290, hidden=12, heads=3, layers=2, intermediate=8
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_reads_back_bit_for_bit(
    variant: Variant, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    network, head = random_network(small(variant), 1).float(), MaskedLanguageHead(small(variant))
    checkpoint.save(tmp_path / "a", network, head, tokenizer, {"recipe": {"seed": 1}})
    checkpoint.save(tmp_path / "a", network, head, tokenizer, {"recipe": {"seed": 2}})
    loaded = checkpoint.load(tmp_path / "a")
    assert loaded.network.sizes == small(variant)
    assert loaded.training == {"recipe": {"seed": 2}}
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)
    assert loaded.head is not None
    assert (loaded.tokenizer.encode(TEXTS, 9).ids == tokenizer.encode(TEXTS, 9).ids).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_tensors_that_do_not_fit_are_named(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    checkpoint.save(folder, random_network(small("base"), 1), None, tokenizer, {})
    tensors = load_file(folder / "model.safetensors")
    del tensors["embeddings.LayerNorm.bias"]
    tensors["classifier.weight"] = torch.zeros(3)
    tensors["encoder.layer.0.mlp.wo.bias"] = torch.zeros(5)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(checkpoint.CheckpointError) as refused:
        checkpoint.load(folder)
    for expected in (
        "embeddings.LayerNorm.bias is missing",
        "classifier.weight is foreign",
        "encoder.layer.0.mlp.wo.bias has shape (5,), not (12,)",
    ):
        assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", "{", "config.json"),
        ("config.json", "{}", "config.json: vocab_size is missing"),
        ("model.safetensors", "x", "model.safetensors"),
        ("tokenizer.json", "{}", "tokenizer.json"),
    ],
)
def test_a_damaged_file_is_named(
    tokenizer: TextTokenizer, tmp_path: Path, name: str, content: str, expected: str
) -> None:
    checkpoint.save(tmp_path / "a", random_network(small("base"), 1), None, tokenizer, {})
    (tmp_path / "a" / name).write_text(content)
    with pytest.raises(checkpoint.CheckpointError, match=expected) as refused:
        checkpoint.load(tmp_path / "a")
    assert "\n" not in str(refused.value)


def test_a_tokenizer_of_another_checkpoint_is_refused(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "a", random_network(small("base"), 1), None, tokenizer, {})
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    TextTokenizer.train(TEXTS, 280).save(tmp_path / "a")
    with pytest.raises(checkpoint.CheckpointError, match="280 tokens"):
        checkpoint.load(tmp_path / "a")
    assert config["vocab_size"] == 290
