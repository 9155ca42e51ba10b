"""The graph for long texts against a forward pass in float64, and what it keeps in memory."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from tests.session_folders import session_folder
from tests.text.encoder.forward import encode, head_slopes
from text.encoder.jinabert import JinaBert
from text.encoder.sizes import EncoderSizes, Variant
from text.export.folded import FoldedEncoder
from text.export.long import NAME, long
from text.runtime.long import LongGraph
from text.runtime.windows import SPARE, reach

BLOCK = 16
HEADS = 3
VARIANTS = [("base", "gelu"), ("base", "relu"), ("qk_norm", "gelu"), ("code", "gelu")]


def network_of(variant: Variant, activation: str) -> JinaBert:
    torch.manual_seed(3)
    sizes = EncoderSizes(
        variant=variant,
        activation=activation,  # type: ignore[arg-type]
        vocabulary=300,
        hidden=24,
        heads=HEADS,
        layers=2,
        intermediate=32,
    )
    network = JinaBert(sizes)
    with torch.no_grad():
        for parameter in network.parameters():  # biases and norms, too
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return network.eval()


@functools.cache
def graph_of(variant: Variant, activation: str) -> tuple[JinaBert, Path]:
    folder = session_folder("long")
    network = network_of(variant, activation)
    long(FoldedEncoder.of(network), block=BLOCK).save(folder)
    return network, folder / f"{NAME}.onnx"


def ids_of(length: int) -> NDArray[np.int32]:
    return np.random.default_rng(length).integers(0, 300, length).astype(np.int32)


def exact(network: JinaBert, ids: NDArray[np.int32], activation: str) -> NDArray[np.float64]:
    tensors = {name: x.double().numpy() for name, x in network.state_dict().items()}
    return encode(tensors, ids.astype(np.int64), HEADS, relu=activation == "relu")


@pytest.mark.parametrize(("variant", "activation"), VARIANTS)
def test_answers_are_the_networks_at_any_length(variant: Variant, activation: str) -> None:
    network, path = graph_of(variant, activation)
    graph = LongGraph(path)
    for length in (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 301):
        ids = ids_of(length)
        token = exact(network, ids, activation)
        mean = token.mean(0)
        answer = graph.encode(ids, tokens=True)
        assert answer.token is not None
        assert np.abs(answer.vector - mean / np.linalg.norm(mean)).max() <= 2e-6
        assert np.abs(answer.token - token).max() <= 2e-5  # not unit vectors


def test_windows_change_no_answer_and_leave_out_keys_of_steep_heads() -> None:
    _, path = graph_of("base", "gelu")
    graph, ids = LongGraph(path), ids_of(1500)
    on, off = graph.encode(ids, tokens=True), graph.encode(ids, tokens=True, windows=False)
    assert np.abs(on.vector - off.vector).max() <= 1e-6
    assert on.token is not None
    assert off.token is not None
    assert np.abs(on.token - off.token).max() <= 1e-5
    assert (off.certificate.share == 1).all()
    assert (off.certificate.window == len(ids)).all()
    steep = int(np.argmax(head_slopes(HEADS)))
    assert (on.certificate.share[:, steep] < 0.5).all()
    assert on.certificate.visited == on.certificate.share.mean() < 1
    assert on.certificate.omitted == pytest.approx(2.0**-24)


@pytest.mark.parametrize("variant", ["base", "qk_norm"])
def test_the_certificate_bounds_the_products_of_the_very_text(variant: Variant) -> None:
    """The first layer's, whose queries and keys are computed here in float64."""
    _, path = graph_of(variant, "gelu")
    ids = ids_of(400)
    certificate = LongGraph(path).encode(ids).certificate
    double = network_of(variant, "gelu").double()
    own = double.encoder.layer[0].attention.get_submodule("self")  # type: ignore[union-attr, index]
    with torch.no_grad():
        x = double.embeddings(torch.from_numpy(ids.astype(np.int64))[None])
        q, k = own.query(x), own.key(x)
        if own.is_normalised:
            q, k = own.layer_norm_q(q), own.layer_norm_k(k)
    width = q.shape[-1] // HEADS
    distance = np.abs(np.arange(len(ids))[:, None] - np.arange(len(ids)))
    for head, slope in enumerate(head_slopes(HEADS)):
        part = slice(head * width, (head + 1) * width)
        products = (q[0, :, part] @ k[0, :, part].T).numpy() / width**0.5
        centred = products - products.mean(1, keepdims=True)
        bound, window = certificate.bound[0, head], int(certificate.window[0, head])
        assert np.abs(centred).max() <= bound
        assert window == min(reach(slope, float(bound)), len(ids))
        logits = products - slope * distance
        weights = np.exp(logits - logits.max(1, keepdims=True))
        left_out = (weights * (distance > window)).sum(1) / weights.sum(1)
        assert left_out.max() < np.exp(-SPARE)


def test_no_tensor_grows_with_the_square_of_the_length(tmp_path: Path) -> None:
    """Read from onnxruntime's profile: the size of every node's output."""
    _, path = graph_of("base", "gelu")
    largest = {}
    for length in (128, 512):
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / str(length))
        session = onnxruntime.InferenceSession(path, options)
        session.run(None, {"ids": ids_of(length).astype(np.int64), "spare": np.array(1e9, "f4")})
        events = json.loads(Path(session.end_profiling()).read_text())
        sizes = [
            int(e["args"]["output_size"]) for e in events if "output_size" in e.get("args", {})
        ]
        assert len(sizes) > 100  # those within the scans, too
        largest[length] = max(sizes)
    assert largest[512] <= 4.1 * largest[128]
    assert largest[512] < 4 * 512 * 512  # one (L, L) of float32


def test_weights_that_are_not_numbers_give_no_finite_answer(tmp_path: Path) -> None:
    """A bound that is not a number leaves out nothing, so that it reaches the answer."""
    network = network_of("base", "gelu")
    with torch.no_grad():
        network.encoder.layer[1].attention.get_submodule("self").query.weight.fill_(torch.nan)  # type: ignore[union-attr, index]
    long(FoldedEncoder.of(network), block=BLOCK).save(tmp_path)
    answer = LongGraph(tmp_path / f"{NAME}.onnx").encode(ids_of(100))
    assert not np.isfinite(answer.vector).any()
