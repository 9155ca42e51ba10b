"""``import-jina``: folders in the published layouts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from tokenizers import Tokenizer
from typer.testing import CliRunner

from tests.text.encoder import forward
from tests.text.encoder.published import (
    LAYOUTS,
    SMALL,
    Size,
    Tensors,
    write_folder,
    write_json,
    write_weights,
)
from text.__main__ import app
from text.encoder import checkpoint, published
from text.encoder.import_published import import_published
from text.encoder.published_onnx import ids_of_texts
from text.encoder.published_tokenizer import read_tokenizer
from text.encoder.sizes import EncoderSizes, vocabulary_fault
from text.encoder.vectors import TorchEncoder
from training.checkpoint import CheckpointError

TEXTS = ["der Hund", "Die Rechnung, (7) Äpfel: under the tree" * 4, "x = 1"]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"


def answers(tensors: Tensors, ids: list[list[int]], size: Size = SMALL) -> np.ndarray:
    vectors = [forward.encode(tensors, np.asarray(each), size.heads).mean(0) for each in ids]
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def ids_by_the_library(folder: Path, layout: str) -> list[list[int]]:
    """Token ids without our code, for the texts that are whole in 512 tokens."""
    if layout == "en":
        from tokenizers import BertWordPieceTokenizer

        tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    else:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return [tokenizer.encode(text).ids for text in TEXTS]


@pytest.mark.parametrize(
    ("layout", "variant", "kind", "prefix", "precision"),
    [
        ("de", "base", "safetensors", "", torch.float16),
        ("de", "base", "bin", "bert.", torch.float32),
        ("es", "qk_norm", "sharded safetensors", "", torch.float32),
        ("es", "qk_norm", "bin", "model.bert.", torch.bfloat16),
        ("en", "base", "safetensors", "bert.", torch.bfloat16),
        ("en", "base", "bin", "", torch.float16),
        ("code", "code", "safetensors", "", torch.float32),
        ("code", "code", "sharded bin", "0.auto_model.", torch.float16),
    ],
)
def test_an_imported_folder_gives_the_vectors_of_the_numpy_forward(
    layout: str, variant: str, kind: str, prefix: str, precision: torch.dtype, tmp_path: Path
) -> None:
    folder, out = tmp_path / "published", tmp_path / "own"
    tensors = write_folder(folder, layout, precision=precision, kind=kind, prefix=prefix)
    about = import_published(folder, out)
    assert about["sizes"]["variant"] == variant
    assert about["precision"] == str(precision).removeprefix("torch.")
    loaded = checkpoint.load(out)
    expected = answers(tensors, ids_by_the_library(folder, layout))
    assert np.abs(TorchEncoder.of(loaded).encode(TEXTS) - expected).max() <= 1e-5
    assert about["padding"] == loaded.tokenizer.pad == (0 if layout == "en" else 1)
    assert any("padding is 0" in note for note in about["notes"]) == (layout != "en")
    assert about["onnx"] is None


def test_the_command_says_what_it_imported(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    write_folder(folder, "es")
    command = ["import-jina", str(folder), "--out", str(tmp_path / "own")]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0
    assert "variant qk_norm, 2 layers of 24" in said.output
    assert "not compared: the folder has no onnx/model.onnx" in said.output
    about = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert about["tokens"] == 268
    write_json(folder / "config.json", {"model_type": "qwen2"})
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert refused.output.count("\n") == 1


def test_languages_that_are_given_at_the_import_are_those_of_its_bundles(tmp_path: Path) -> None:
    """No published file says which they are."""
    folder, own, bundles = (tmp_path / name for name in ("published", "own", "bundles"))
    write_folder(folder, "de")
    command = ["import-jina", str(folder), "--out", str(own)]
    refused = CliRunner().invoke(app, [*command, "--languages", "de,English"])
    assert refused.exit_code == 2
    assert "English is no language code" in " ".join(refused.output.split())
    build = ["build", str(own), "--out", str(bundles), "--longest", "64", "--version"]
    for version, options, expected in (
        ("said", ["--languages", "de, en"], ["de", "en"]),
        ("not", [], []),
    ):
        for words in ([*command, *options], [*build, version]):
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
        manifest = json.loads((bundles / version / "manifest.json").read_text())
        assert manifest["languages"] == expected


def test_tensors_are_laid_out_without_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which PyTorch has for tensors without memory in Python alone, with sympy: 2.4 s."""

    def drawn(*_: object, **__: object) -> None:
        raise AssertionError("a draw")

    monkeypatch.setattr(torch.Tensor, "normal_", drawn)
    network = published._laid_out(EncoderSizes(layers=1))
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}


@pytest.fixture(scope="module", params=LAYOUTS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_folder(folder, request.param, replace(SMALL, layers=1))
    return folder


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), prefix=st.sampled_from(["", "bert."]), rate=st.integers(0, 9))
def test_a_tensor_that_is_removed_renamed_reshaped_or_broken_is_named(
    whole: Path, data: st.DataObject, prefix: str, rate: int
) -> None:
    tensors = {f"{prefix}{name}": x for name, x in checkpoint_tensors(whole).items()}
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    change = data.draw(st.sampled_from(["removed", "renamed", "reshaped", "broken", "integers"]))
    expected = {"removed": [f"{name} is missing"], "renamed": [f"{name} is missing"]}.get(change)
    if change == "renamed":
        tensors[f"{name}_{rate}"] = tensor
        expected = [f"{name} is missing", f"{name}_{rate} is foreign"]
    elif change == "reshaped":
        tensors[name] = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 1 + rate)
        expected = [f"{name} has shape ({', '.join(map(str, tensors[name].shape))}"]
    elif change == "broken":
        tensors[name] = tensor.clone()
        tensors[name].view(-1)[-1] = [np.nan, np.inf, -np.inf][rate % 3]
        expected = [f"{name} holds numbers that are not finite"]
    elif change == "integers":
        tensors[name] = tensor.to(torch.int8)
        expected = [f"{name} holds int8"]
    broken = whole.parent / f"broken-{whole.name}"
    broken.mkdir(exist_ok=True)
    for file in whole.iterdir():
        if file.suffix != ".safetensors":
            (broken / file.name).write_bytes(file.read_bytes())
    write_weights(broken, tensors, "safetensors")
    with pytest.raises(CheckpointError) as refused:
        published.read(broken)
    for words in expected or []:
        assert words in str(refused.value)
    assert "model.safetensors" in str(refused.value)
    assert "\n" not in str(refused.value)


def checkpoint_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_heads_poolers_and_buffers_are_left_out_and_listed(tmp_path: Path) -> None:
    write_folder(tmp_path, "de", kind="bin", prefix="bert.")
    tensors = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    more = ["bert.pooler.dense.weight", "bert.embeddings.position_ids", "cls.predictions.bias"]
    more += ["cls.predictions.decoder.weight", "cls.predictions.transform.LayerNorm.bias"]
    tensors |= {name: torch.zeros(3) for name in more}
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "pytorch_model.bin")
    assert published.read(tmp_path).unused == more
    tensors["classifier.weight"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"classifier\.weight is foreign"):
        published.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "xlm-roberta"}, "model_type xlm-roberta"),
        (
            {"model_type": "qwen2", "position_embedding_type": None},
            "position_embedding_type absent",
        ),
        ({"position_embedding_type": "absolute"}, "position_embedding_type absolute"),
        ({"feed_forward_type": "original"}, "feed_forward_type is original"),
        ({"emb_pooler": "cls"}, "emb_pooler is cls"),
        ({"num_attention_heads": 5}, "hidden 24 is no multiple of heads 5"),
        ({"hidden_size": "wide"}, "hidden_size: not an integer"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": 1}, r"encoder\.layer\.1\S+ is foreign.* and 11 more"),
        ({"vocab_size": 400}, r"word_embeddings\.weight has shape \(268, 24\), not \(400, 24\)"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_in_one_line(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, "de")
    config = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", config | changes)
    with pytest.raises(CheckpointError, match=expected) as refused:
        published.read(tmp_path)
    assert "\n" not in str(refused.value)


def test_keys_that_old_configurations_lack_have_the_published_values(tmp_path: Path) -> None:
    write_folder(tmp_path, "de")
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("layer_norm_eps", "type_vocab_size", "initializer_range", "feed_forward_type"):
        del config[key]
    write_json(tmp_path / "config.json", config | {"hidden_act": "relu"})
    read = published.read(tmp_path)
    assert read.network.sizes.activation == "relu"
    assert read.network.sizes.norm_epsilon == 1e-12
    assert "feed_forward_type is absent: reglu by hidden_act" in read.notes


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("tokenizer_config.json", {"pad_token": "[PAD]"}, r"pad_token \[PAD\] is not in"),
        ("tokenizer_config.json", {"cls_token": "<pad>"}, "cls_token is <pad>, and"),
        ("tokenizer_config.json", {"add_prefix_space": True}, "add_prefix_space is true, in"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"3": {"content": "<pad>"}}},
            "<pad> is 3, in tokenizer.json 1",
        ),
        ("tokenizer.json", {"post_processor": None}, "post-processor adds 0 tokens"),
        ("tokenizer.json", {"model": {}}, "not a tokenizer"),
    ],
)
def test_tokenizer_files_that_contradict_each_other_are_refused(
    file: str, change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, "de")
    edited(tmp_path / file, lambda content: content.update(change))
    with pytest.raises(CheckpointError, match=expected) as refused:
        read_tokenizer(tmp_path)
    assert "\n" not in str(refused.value)


def test_tokenizer_files_of_two_models_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "en", "en")
    write_folder(tmp_path / "de", "de")
    own = published.read(tmp_path / "en").tokenizer
    own.save(tmp_path / "en")
    edited(tmp_path / "en" / "tokenizer_config.json", lambda it: it.update(do_lower_case=False))
    with pytest.raises(CheckpointError, match=r"do_lower_case is false, in tokenizer\.json true"):
        read_tokenizer(tmp_path / "en")
    (tmp_path / "en" / "tokenizer_config.json").unlink()
    words = tmp_path / "en" / "vocab.txt"
    assert (read_tokenizer(tmp_path / "en").encode(TEXTS, 9).ids == own.encode(TEXTS, 9).ids).all()
    words.write_text(words.read_text("utf-8").replace("a\nb\n", "b\na\n"), "utf-8")
    with pytest.raises(CheckpointError, match=r"vocab\.txt: other tokens than tokenizer\.json"):
        read_tokenizer(tmp_path / "en")
    own.save(tmp_path / "de")
    with pytest.raises(CheckpointError, match=rf"{own.vocabulary} tokens, too few for the 268"):
        published.read(tmp_path / "de")


def test_tensors_that_are_parts_of_one_storage_are_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", "de", precision=torch.float32, kind="bin")
    tensors = torch.load(tmp_path / "a" / "pytorch_model.bin", weights_only=True)
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    views = {
        name: part.view(tensor.shape)
        for (name, tensor), part in zip(tensors.items(), parts, strict=True)
    }
    torch.save(views, tmp_path / "a" / "pytorch_model.bin")
    import_published(tmp_path / "a", tmp_path / "own")
    written = checkpoint.load(tmp_path / "own").network.state_dict()
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items())


def test_a_tokenizer_without_its_own_file_is_built_of_vocabulary_and_merges(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path, "de")
    whole = read_tokenizer(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    write_json(tmp_path / "vocab.json", model["vocab"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(model["merges"]) + "\n")
    texts = [*TEXTS, "in  <mask>\n\ttun"]
    assert (read_tokenizer(tmp_path).encode(texts, 99).ids == whole.encode(texts, 99).ids).all()
    write_folder(tmp_path / "en", "en")
    edited(tmp_path / "en" / "tokenizer_config.json", lambda it: it.update(do_lower_case=False))
    first, again = (read_tokenizer(tmp_path / "en").encode(["the THE"], 9).ids for _ in "ab")
    assert (first == again).all()
    assert np.count_nonzero(first == 91) == 1  # [UNK]: cased


def test_rows_that_rounding_up_explains_are_padding() -> None:
    assert vocabulary_fault(30_522, 30_528) is None
    assert vocabulary_fault(61_056, 61_056) is None
    assert "too few" in str(vocabulary_fault(30_522, 61_056))
    assert "too few" in str(vocabulary_fault(280, 290))
    assert "more than" in str(vocabulary_fault(291, 290))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, "", "{", LFS])
def test_an_absent_empty_or_undownloaded_file_is_named(
    name: str, content: str | None, tmp_path: Path
) -> None:
    write_folder(tmp_path, "de")
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    expected = r"git lfs pull" if content == LFS else name.partition(".")[0]
    with pytest.raises(CheckpointError, match=expected) as refused:
        published.read(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("kind", ["sharded safetensors", "sharded bin"])
def test_a_missing_shard_and_one_of_another_download_are_named(kind: str, tmp_path: Path) -> None:
    write_folder(tmp_path, "de", kind=kind)
    first, second = sorted(path for path in tmp_path.glob("*-of-*"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match=rf"{second.name}: .* not in both"):
        published.read(tmp_path)
    second.unlink()
    with pytest.raises(CheckpointError, match=rf"{second.name}: No such file"):
        published.read(tmp_path)


class Stranger:
    """A class that a pickle names; reading it would run code."""


@pytest.mark.parametrize("content", [{"model": Stranger()}, {}, [1], {"a": {"b": 1}}])
def test_a_pickle_that_is_no_state_dict_is_not_run(content: object, tmp_path: Path) -> None:
    write_folder(tmp_path, "de", kind="bin")
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: ") as refused:
        published.read(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("1_Pooling", {"pooling_mode_cls_token": True}, "pooling is .*cls_token.*mean"),
        ("1_Pooling", {"pooling_mode": "lasttoken"}, "pooling is lasttoken"),
        ("modules", [{"type": "sentence_transformers.models.Dense"}], "a module Dense"),
        (
            "modules",
            [{"type": "a.Pooling", "path": "../other"}],
            r"\.\./other is not in the folder",
        ),
        ("1_Pooling", {"pooling_mode_mean_tokens": True, "include_prompt": True}, None),
        ("1_Pooling", {"pooling_mode": "mean"}, None),
        (
            "modules",
            [{"type": "a.Transformer", "path": "0_Transformer"}, {"type": "Normalize"}],
            None,
        ),
    ],
)
def test_a_pooling_or_module_that_changes_vectors_is_refused(
    file: str, content: object, expected: str | None, tmp_path: Path
) -> None:
    within = "0_Transformer" if expected is None and file == "modules" else ""
    write_folder(tmp_path / within, "de")
    path = tmp_path / ("modules.json" if file == "modules" else "1_Pooling/config.json")
    path.parent.mkdir(exist_ok=True)
    write_json(path, content)
    if expected is None:
        assert published.read(tmp_path).network.sizes.hidden == 24
        return
    with pytest.raises(CheckpointError, match=expected):
        published.read(tmp_path)


def write_graph(folder: Path, vectors: dict[int, np.ndarray], half: bool = False) -> None:
    """Write a graph that looks its token vectors up by the number of ids."""
    table = np.zeros((max(vectors) + 1, SMALL.hidden), np.float16 if half else np.float32)
    for length, vector in vectors.items():
        table[length] = vector
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Gather", ["table", "length"], ["row"]),
        helper.make_node("Cast", ["row"], ["vector"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["shape", "width"], ["whole"], axis=0),
        helper.make_node("Expand", ["vector", "whole"], ["last_hidden_state"]),
    ]
    axes = ["batch", "length"]
    graph = helper.make_graph(
        nodes,
        "published",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, axes)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, 24])],
        [
            numpy_helper.from_array(np.asarray(1), "one"),
            numpy_helper.from_array(np.asarray([SMALL.hidden]), "width"),
            numpy_helper.from_array(table, "table"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "onnx").mkdir(exist_ok=True)
    onnx.save(model, folder / "onnx" / "model.onnx")


def test_the_folders_own_graph_is_compared(tmp_path: Path) -> None:
    folder, out = tmp_path / "published", tmp_path / "own"
    tensors = write_folder(folder, "code", precision=torch.float32)
    texts = [ids[0] for ids in ids_of_texts(read_tokenizer(folder))]
    assert [len(ids) for ids in texts] == [3, 12, 60, 260, 700]
    vectors = {
        len(ids): forward.encode(tensors, ids, SMALL.heads).mean(0).astype(np.float32)
        for ids in texts
    }
    write_graph(folder, vectors)
    compared = import_published(folder, out)["onnx"]
    assert compared["verified"]
    assert compared["largest_difference"] <= 1e-6
    assert compared["tokens"] == (3, 12, 60, 260, 700)

    write_graph(folder, vectors, half=True)
    assert import_published(folder, out)["onnx"]["tolerance"] == 2e-3

    write_graph(folder, vectors | {60: np.full(24, np.nan)}, half=True)
    reason = import_published(folder, out)["onnx"]["reason"]
    assert "not finite: a known fault of float16 graphs" in reason

    before = (out / "model.safetensors").stat().st_ino
    write_graph(folder, vectors | {700: vectors[700] + 0.05})
    with pytest.raises(CheckpointError, match=r"model\.onnx: vectors differ by up to \d"):
        import_published(folder, out)
    assert (out / "model.safetensors").stat().st_ino == before

    for content in (LFS, "no graph"):
        (folder / "onnx" / "model.onnx").write_text(content)
        compared = import_published(folder, out)["onnx"]
        assert not compared["verified"]
        assert compared["reason"].startswith(f"{folder}")


def test_the_published_folder_is_not_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", "de")
    with pytest.raises(CheckpointError, match="would replace the published folder"):
        import_published(tmp_path / "a", tmp_path / "a")
