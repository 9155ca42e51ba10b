"""Checkpoints in the published layout."""

from __future__ import annotations

import json
from collections.abc import Callable
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
        ("config.json", "{}", "config.json: feed_forward_type is absent"),
        ("config.json", '{"feed_forward_type": "geglu"}', "config.json: vocab_size is missing"),
        ("config.json", '{"feed_forward_type": ["x"]}', "it must be geglu or reglu"),
        ("model.safetensors", "x", "model.safetensors: damaged or truncated"),
        (
            "model.safetensors",
            "version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "model.safetensors: a Git LFS pointer to 9 bytes",
        ),
        ("tokenizer.json", "{}", "tokenizer.json"),
        ("training.json", "{", "training.json"),
        ("training.json", '{"stages": "pairs"}', "training.json: stages: not a list"),
        ("training.json", '{"history": [1]}', "training.json: history.0: not a mapping"),
        ("training.json", '{"recipe": null}', "training.json: recipe: not a mapping"),
        ("training.json", '{"recipe": {"masked": 1}}', "training.json: recipe.masked: not a"),
        ("training.json", '{"corpus": {"languages": 2}}', "corpus.languages: not a list"),
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


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_file_of_a_checkpoint_is_none(
    tokenizer: TextTokenizer, tmp_path: Path, name: str
) -> None:
    checkpoint.save(tmp_path / "a", random_network(small("base"), 1), None, tokenizer, {})
    (tmp_path / "a" / name).unlink()
    expected = rf"a: not a checkpoint of an encoder: no {name}; `python -m text fit` or `import-jin"
    with pytest.raises(checkpoint.CheckpointError, match=expected):
        checkpoint.load(tmp_path / "a")


def test_sizes_that_are_invalid_are_named_by_the_published_keys(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "a", random_network(small("base"), 1), None, tokenizer, {})
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    with pytest.raises(checkpoint.CheckpointError, match=r"json: hidden_size: not an integer"):
        checkpoint.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x.to(torch.int8), "holds int8"),
        (lambda x: x.fill_(torch.nan), "holds numbers that are not finite"),
    ],
)
def test_weights_that_give_no_vectors_are_named(
    tokenizer: TextTokenizer,
    tmp_path: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    expected: str,
) -> None:
    name = "encoder.layer.1.mlp.wo.weight"
    checkpoint.save(tmp_path / "a", random_network(small("base"), 1), None, tokenizer, {})
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    save_file(tensors | {name: change(tensors[name])}, tmp_path / "a" / "model.safetensors")
    with pytest.raises(checkpoint.CheckpointError, match=f"{name} {expected}"):
        checkpoint.load(tmp_path / "a")


def test_a_tokenizer_of_another_checkpoint_is_refused(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "a", random_network(small("base"), 1), None, tokenizer, {})
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    TextTokenizer.train(TEXTS, 280).save(tmp_path / "a")
    with pytest.raises(checkpoint.CheckpointError, match="280 tokens"):
        checkpoint.load(tmp_path / "a")
    assert config["vocab_size"] == 290


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_of_another_checkpoint_of_equal_sizes_is_refused(
    tokenizer: TextTokenizer, tmp_path: Path, name: str
) -> None:
    folder, other = tmp_path / "a", tmp_path / "b"
    checkpoint.save(folder, random_network(small("base"), 1), None, tokenizer, {})
    sizes = small("base").model_copy(update={"norm_epsilon": 1e-6})
    others = TextTokenizer.train([text.replace("others", "rest") for text in TEXTS], 290)
    checkpoint.save(other, random_network(sizes, 2), None, others, {})
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(
        checkpoint.CheckpointError, match=f"{name}: not the file that training.json"
    ):
        checkpoint.load(folder)
    (folder / "training.json").write_text("{}")  # as earlier releases wrote it
    checkpoint.load(folder)
