"""Long texts among short ones, and late chunking, through a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model_export.bundle.errors import BundleError
from tests.text.small import WORDS
from text.encoder.checkpoint import load
from text.export.build import build
from text.export.golden import exact
from text.runtime.chunks import SpanError
from text.runtime.encoder import TextEncoder
from text.runtime.errors import TextTooLong
from text.runtime.manifest import LONG

LONGEST = 1600
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def long_bundle(checkpoint: Path) -> Path:
    return build(checkpoint, checkpoint.parent, version="long", longest=LONGEST).path


@pytest.fixture(scope="module")
def encoder(long_bundle: Path) -> TextEncoder:
    return TextEncoder.open(long_bundle)


def text_of(words: int) -> str:
    return " ".join(np.random.default_rng(words).choice(WORDS, words))


def test_long_texts_among_short_ones_are_the_networks_and_certified(
    encoder: TextEncoder, checkpoint: Path
) -> None:
    texts = [text_of(9), text_of(350), text_of(30), text_of(450)]
    encoded = encoder.encode(texts)
    loaded = load(checkpoint)
    tokens = loaded.tokenizer.encode(texts, LONGEST)
    long = np.flatnonzero(encoded.tokens > encoder.manifest.lengths.packed).tolist()
    assert long == [1, 3]
    assert np.abs(encoded.vectors - exact(loaded.network, tokens)).max() <= TOLERANCE
    assert sorted(encoded.certificates) == long
    certificate = encoded.certificates[1]
    assert certificate.share.shape == (2, 3)  # layers, heads
    assert (certificate.share > 0).all()
    assert (certificate.share <= 1).all()


def test_a_long_text_is_cut_only_if_asked_and_said(encoder: TextEncoder) -> None:
    text = text_of(2000)
    with pytest.raises(TextTooLong, match="at most 1,600 are read"):
        encoder.encode([text])
    with pytest.raises(TextTooLong, match="at most 1,600 are read"):
        encoder.chunks(text, [(0, 5)])
    cut = encoder.encode([text], truncate=True)
    assert (cut.truncated.tolist(), cut.tokens.tolist()) == ([True], [LONGEST])
    chunks = encoder.chunks(text, [(0, 5)], truncate=True)
    assert chunks.truncated
    with pytest.raises(SpanError, match=r"span 1 .+ no token: the text was read to character \d"):
        encoder.chunks(text, [(0, 5), (len(text) - 4, len(text))], truncate=True)


def test_short_texts_need_no_graph_for_long_ones(long_bundle: Path, tmp_path: Path) -> None:
    """It is opened by the first long text; a fault of the file is named then."""
    shutil.copytree(long_bundle, tmp_path / "long")
    encoder = TextEncoder.open(tmp_path / "long")
    (tmp_path / "long" / f"{LONG}.onnx").write_bytes(b"")
    assert np.isfinite(encoder.encode([text_of(9)]).vectors).all()
    with pytest.raises(BundleError, match=rf"{LONG}\.onnx.+text build"):
        encoder.encode([text_of(450)])


@pytest.mark.parametrize("words", [12, 350])
def test_chunks_are_means_of_the_networks_tokens_in_one_pass(
    encoder: TextEncoder, checkpoint: Path, words: int
) -> None:
    text = text_of(words)
    half = text.index(" ", len(text) // 2)
    spans = [(0, half), (half, len(text)), (0, len(text)), (0, text.index(" "))]
    chunks = encoder.chunks(text, spans)
    loaded = load(checkpoint)
    ids, places = loaded.tokenizer.encode_placed(text, LONGEST)
    with torch.no_grad():
        network = loaded.network.double()
        token = network(torch.from_numpy(ids.astype(np.int64))[None], torch.tensor([len(ids)]))
    for index, (start, end) in enumerate(spans):
        mean = token[0].numpy()[(places[:, 0] < end) & (places[:, 1] > start)].mean(0)
        assert np.abs(chunks.vectors[index] - mean / np.linalg.norm(mean)).max() <= TOLERANCE
    space = int(places[1, 1] == 0)  # before the text, where it is a token of its own
    assert chunks.tokens[0] + chunks.tokens[1] == chunks.tokens[2] == len(ids) - 2 - space
    assert chunks.overlapping.tolist() == [True] * 4
    assert not chunks.truncated
    assert chunks.certificate.share.shape == (2, 3)


@pytest.mark.parametrize(
    ("span", "fault"),
    [((4, 4), "empty"), ((4, 2), "empty"), ((-1, 2), "outside of the text"), ((0, 99), "outside")],
)
def test_a_span_without_a_vector_is_named(
    encoder: TextEncoder, span: tuple[int, int], fault: str
) -> None:
    with pytest.raises(SpanError, match=rf"^span 1 \[{span[0]}, {span[1]}\): {fault}"):
        encoder.chunks("the tree", [(0, 3), span])
