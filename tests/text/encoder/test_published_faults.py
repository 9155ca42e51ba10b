"""``import-jina``: folders that are damaged, hostile or of another model, each refused in one line
that names file, fault and remedy; and odd ones that are right."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.text.encoder import forward
from tests.text.encoder.published import SMALL, Tensors, write_folder, write_json, write_weights
from tests.text.encoder.test_published import write_graph
from text.encoder import published
from text.encoder.import_published import import_published
from text.encoder.published_onnx import ids_of_texts
from text.encoder.published_tokenizer import read_tokenizer
from text.encoder.weights import MOST_MESSAGE
from training.checkpoint import CheckpointError

ONE = replace(SMALL, layers=1)
NAME = "encoder.layer.0.mlp.wo.weight"


def refused(folder: Path, *expected: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        published.read(folder)
    message = str(caught.value)
    assert all(words in message for words in expected), message
    assert str(folder) in message
    assert message.isprintable()
    assert len(message) <= MOST_MESSAGE + 3


def vector(network: Any, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        found = network.embed(torch.tensor([ids]), torch.tensor([len(ids)]))[0].double().numpy()
    return np.asarray(found / np.linalg.norm(found))


def assert_read(folder: Path, tensors: Tensors, heads: int = SMALL.heads) -> published.Published:
    read, ids = published.read(folder), [0, 7, 100, 31, 5, 2]
    mean = forward.encode(tensors, np.asarray(ids), heads).mean(0)
    assert np.abs(vector(read.network, ids) - mean / np.linalg.norm(mean)).max() <= 1e-5
    return read


def linked(folder: Path) -> None:
    """Move files as a cache of the Hugging Face hub has them: links to blobs elsewhere."""
    blobs = folder.parent / f"{folder.name}-blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../{blobs.name}/{number}")


def added(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_files_that_are_links_to_blobs_are_read(tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "snapshot", "es", ONE)
    linked(tmp_path / "snapshot")
    assert_read(tmp_path / "snapshot", tensors)


@pytest.mark.parametrize("start", [8192, 512, 0, None])
def test_the_start_of_the_bias_table_changes_nothing(start: int | None, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path, "de", ONE)
    added(tmp_path, alibi_starting_size=start, max_position_embeddings=start)
    assert_read(tmp_path, tensors)


def test_tensors_of_several_precisions_under_a_prefix_with_a_hyphen_are_read(
    tmp_path: Path,
) -> None:
    tensors = write_folder(tmp_path, "code", ONE, precision=torch.bfloat16)
    mixed = {
        f"jina-bert.{name}": torch.from_numpy(x).to(torch.float64 if "norm" in name else None)
        for name, x in tensors.items()
    }
    unused = {"jina-bert.pooler.dense.bias": torch.full((3,), torch.nan)}
    write_weights(tmp_path, mixed | unused, "bin")
    assert assert_read(tmp_path, tensors).unused == list(unused)


def plain_bert(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename to BERT's own layout, with learnt positions."""
    names = {"mlp.gated_layers": "intermediate.dense", "mlp.wo": "output.dense"}
    for ours, theirs in names.items():
        tensors = {name.replace(ours, theirs): x for name, x in tensors.items()}
    return tensors | {"embeddings.position_embeddings.weight": torch.zeros(512, 24)}


def test_a_bert_with_learnt_positions_is_refused_even_if_its_configuration_says_alibi(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path, "de", ONE)
    write_weights(tmp_path, plain_bert(load_file(tmp_path / "model.safetensors")), "bin")
    refused(tmp_path, "mlp.gated_layers.weight is missing", "another model's")
    added(tmp_path, position_embedding_type="absolute")
    refused(tmp_path, "config.json: not a JinaBERT", "position_embedding_type absolute")


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (torch.zeros(24, 20).to_sparse(), "sparse, nested or of no data"),
        (torch.empty(24, 20, device="meta"), "sparse, nested or of no data"),
        (torch.ones(24, 20, dtype=torch.complex64), "holds complex64"),
        ([1, 2], "not a tensor: list"),
    ],
)
def test_a_tensor_without_a_number_for_every_place_is_named(
    tensor: object, fault: str, tmp_path: Path
) -> None:
    tensors = write_folder(tmp_path, "de", ONE, kind="bin")
    given: dict[str, Any] = {name: torch.from_numpy(x) for name, x in tensors.items()}
    write_weights(tmp_path, given | {NAME: tensor}, "bin")
    refused(tmp_path, f"pytorch_model.bin: {NAME}", fault, "download")


@pytest.mark.parametrize("name", ["a\nb\x1b[31m", "a\ud800", "x" * 10_000])
def test_a_message_that_quotes_a_file_is_one_printable_line(name: str, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path, "de", ONE)
    given = {key: torch.from_numpy(x) for key, x in tensors.items()}
    write_weights(tmp_path, given | {name: torch.zeros(1)}, "bin")
    refused(tmp_path, "is foreign", "download")
    added(tmp_path, model_type=name)
    refused(tmp_path, "not a JinaBERT")


class Payload:
    """Creates a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_no_code_of_a_pickle_is_run(form: str, tmp_path: Path) -> None:
    tensors = write_folder(tmp_path, "de", ONE, kind="bin")
    path, ran = tmp_path / "pytorch_model.bin", tmp_path / "ran"
    content = {name: torch.from_numpy(x) for name, x in tensors.items()} | {"x": Payload(ran)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Payload(ran)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refused(tmp_path, "holds Python objects", "safetensors file")
    assert not ran.exists()
    pickle.loads(pickle.dumps(Payload(ran)))  # it would have
    assert ran.exists()


FILES = [
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt", "modules.json", "1_Pooling/config.json",
]  # fmt: skip


def broken_link(path: Path) -> None:
    path.symlink_to("gone")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def bytes_of_no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", [broken_link, loop, bytes_of_no_text, os.mkfifo, Path.mkdir])
def test_a_file_that_is_none_is_named(
    name: str, fault: Callable[[Path], None], tmp_path: Path
) -> None:
    """Also one that may be absent: a link to it says that it was published."""
    write_folder(tmp_path, "de", ONE)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    fault(path)
    refused(tmp_path, str(path))


@pytest.mark.parametrize("shard", ["a\0.bin", "..", "", "../model", "/model", "a\nb", "\ud800"])
def test_a_shard_is_a_file_of_the_folder(shard: str, tmp_path: Path) -> None:
    write_folder(tmp_path, "de", ONE, kind="sharded safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {NAME: shard}}))
    refused(tmp_path, f"{path.name}: weight_map has no file of the folder", "download")


@pytest.mark.parametrize("place", ["a\0", "..", "/", "loop/x", "\ud800", "a\nb"])
@pytest.mark.parametrize("kind", ["Pooling", "Transformer"])
def test_a_module_is_in_the_folder(place: str, kind: str, tmp_path: Path) -> None:
    write_folder(tmp_path, "de", ONE)
    (tmp_path / "loop").symlink_to("..")
    path = tmp_path / "modules.json"
    path.write_text(json.dumps([{"type": f"sentence_transformers.models.{kind}", "path": place}]))
    refused(tmp_path, "modules.json: the path", "is not in the folder")


def test_a_pooling_that_is_listed_is_there(tmp_path: Path) -> None:
    write_folder(tmp_path, "de", ONE)
    write_json(tmp_path / "modules.json", [{"type": "a.models.Pooling", "path": "1_Pooling"}])
    refused(tmp_path, "1_Pooling/config.json: No such file or directory; download")


@pytest.mark.parametrize("value", [["gelu"], {"a": 1}, 3, None])
def test_an_activation_that_is_no_name_is_refused(value: object, tmp_path: Path) -> None:
    write_folder(tmp_path, "de", ONE)
    added(tmp_path, feed_forward_type=None, hidden_act=value)
    refused(tmp_path, "config.json: feed_forward_type is absent; it must be geglu or reglu")


@pytest.mark.parametrize(
    ("name", "settings", "fault"),
    [
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is True"),
        ("sentence_bert_config.json", {"do_lower_case": False, "max_seq_length": 8192}, None),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "default_prompt_name is query",
        ),
        ("config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": None}, None),
    ],
)
def test_settings_that_change_texts_before_they_are_encoded_are_refused(
    name: str, settings: dict[str, object], fault: str | None, tmp_path: Path
) -> None:
    tensors = write_folder(tmp_path, "de", ONE)
    write_json(tmp_path / name, settings)
    if fault is None:
        assert_read(tmp_path, tensors)
    else:
        refused(tmp_path, f"{name}: {fault}", "take it out")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("added_tokens.json", {"<x>": 268}, "<x> is 268, in tokenizer.json absent"),
        ("added_tokens.json", {"<mask>": 9}, "<mask> is 9, in tokenizer.json 4"),
        ("vocab.json", {"<s>": 0, "a": 3}, "a is 3, in tokenizer.json"),
        ("vocab.json", {"<s>": 0, "<pad>": 1}, None),
    ],
)
def test_tokens_of_two_tokenizers_are_refused(
    name: str, content: dict[str, int], fault: str | None, tmp_path: Path
) -> None:
    tensors = write_folder(tmp_path, "de", ONE)
    write_json(tmp_path / name, content)
    if fault is None:
        assert_read(tmp_path, tensors)
    else:
        refused(tmp_path, f"{name}: {fault}", "files of two tokenizers; download")


@pytest.mark.parametrize(
    ("precision", "share", "off", "agrees"),
    [
        (torch.float32, 1, 0, True),
        (torch.float32, 1, 5e-4, False),
        (torch.float16, 1, 5e-4, True),  # as much as rounding to half precision explains
        (torch.float16, 1, 5e-3, False),
        (torch.float32, 0, 0, False),
    ],
)
def test_a_graph_that_disagrees_is_refused_beyond_what_its_precision_explains(
    precision: torch.dtype, share: float, off: float, agrees: bool, tmp_path: Path
) -> None:
    tensors = write_folder(tmp_path / "in", "de", ONE, precision=precision)
    vectors = {}
    for (ids,) in ids_of_texts(read_tokenizer(tmp_path / "in")):
        vector = forward.encode(tensors, ids, SMALL.heads).mean(0)
        vector[0] += off * np.linalg.norm(vector)
        vectors[len(ids)] = (share * vector).astype(np.float32)
    write_graph(tmp_path / "in", vectors)
    if agrees:
        assert import_published(tmp_path / "in", tmp_path / "out")["onnx"]["verified"]
        return
    with pytest.raises(CheckpointError, match=r"model\.onnx: vectors differ by up to \d.+ delete"):
        import_published(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_token_beyond_the_word_table_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "de", ONE)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 268, "content": "<x>"})
    write_json(path, content)
    refused(tmp_path, "the tokenizer has 269 tokens, more than the 268 rows of config.json")
