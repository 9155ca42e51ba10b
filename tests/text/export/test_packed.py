"""The packed graph is the network, text by text: every variant, against numpy in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from model_export.bundle.sessions import open_session
from tests.text import small
from tests.text.encoder import forward
from tests.text.encoder.test_jinabert import VARIANTS, arrays, random_network
from text.encoder.sizes import Variant
from text.export import layers
from text.export.folded import FoldedEncoder
from text.export.packed import packed
from text.export.shared_weights import save
from text.runtime.packs import pack, tokens_of


def written(folder: Path, variant: Variant, **others: object) -> tuple[object, object]:
    network = random_network(small.sizes(variant, **others), 3)
    save([packed(FoldedEncoder.of(network))], folder, "encoder.weights")
    return network, open_session(folder / "encoder.onnx", 1)


def assert_answers(network: object, session: onnxruntime.InferenceSession, relu: bool) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 40, 25)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    ids = random.integers(0, 280, offsets[-1]).astype(np.int32)
    for each in pack(lengths.tolist(), 32, 128):
        laid = tokens_of(each, ids, offsets)
        embedding, token = session.run(None, {"ids": laid.ids, "text": laid.text})
        for text, row, number in zip(each.texts, laid.row, laid.number, strict=True):
            own = ids[offsets[text] : offsets[text + 1]].astype(np.int64)
            wanted = forward.encode(arrays(network), own, 3, 1e-6, relu)
            at = laid.text[:, row] == number
            assert np.abs(token[at, row] - wanted).max() <= 1e-5 * np.abs(wanted).max()
            mean = wanted.mean(0)
            assert np.abs(embedding[row, number] - mean / np.linalg.norm(mean)).max() <= 2e-6


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_packs_are_the_numpy_forward_of_each_text(
    tmp_path: Path, variant: Variant, activation: str
) -> None:
    network, session = written(tmp_path, variant, activation=activation)
    assert_answers(network, session, activation == "relu")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_vocabulary_too_large_for_tables_is_projected_in_the_graph(
    tmp_path: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "MOST_TABLE_BYTES", 0)
    network, session = written(tmp_path, variant)
    assert not (tmp_path / "encoder.onnx").read_bytes().count(b"0.key.tokens")
    assert_answers(network, session, False)


def test_the_runtime_fuses_the_transposes_around_attention(tmp_path: Path) -> None:
    """The layout (T, R) is for that; if a release ceases to, rows may as well come first."""
    import onnx

    written(tmp_path, "base")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        str(tmp_path / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
    )
    model = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("FusedMatMul") == 2 * 2 + 1  # two a layer, one for the means
    assert kinds.count("Transpose") == 2 + 1  # attention's output; the text numbers


def test_graphs_share_weights_of_the_same_name(tmp_path: Path) -> None:
    encoder = FoldedEncoder.of(random_network(small.sizes(), 3))
    save([packed(encoder)], tmp_path, "one.weights")
    save([packed(encoder), packed(encoder, "other")], tmp_path, "two.weights")
    assert (tmp_path / "one.weights").read_bytes() == (tmp_path / "two.weights").read_bytes()
    other = FoldedEncoder.of(random_network(small.sizes(), 4))
    with pytest.raises(ValueError, match="two weights are called"):
        save([packed(encoder), packed(other, "other")], tmp_path, "three.weights")
