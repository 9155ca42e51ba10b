"""Bundles whose manifest was altered with them, and odd texts from several threads: an answer that
is right, or an error that names file or text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_export.bundle.bundle import digest
from model_export.bundle.errors import BundleError, ParityError
from tests.text.small import WORDS
from text.runtime.bundle import EncoderBundle
from text.runtime.cache import VectorCache
from text.runtime.encoder import Encoded, TextEncoder
from text.runtime.errors import TextError, TextTooLong
from text.runtime.golden import GoldenTexts
from text.runtime.manifest import GOLDEN, MANIFEST, MOST_LONGEST, MOST_ROW, TOLERANCE
from text.runtime.verify import check_golden, verify


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / bundle.name))


def rewrite(bundle: Path, **values: object) -> None:
    """Change values of the manifest, and make its digests those of the files."""
    file = bundle / MANIFEST
    manifest = json.loads(file.read_text())
    for name, value in values.items():
        manifest[name] = manifest[name] | value if isinstance(value, dict) else value
    manifest["files"] = {name: digest(bundle / name).model_dump() for name in manifest["files"]}
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("part", "value", "fault"),
    [
        ("lengths", {"longest": MOST_LONGEST + 1}, r"lengths\.longest: must be at most 65536"),
        ("lengths", {"row": MOST_ROW + 1}, r"lengths\.row: must be at most 4096"),
        ("lengths", {"call": 10**12}, r"lengths\.call: must be at most 65536"),
        ("lengths", {"packed": MOST_ROW + 1}, r"lengths\.packed: must be at most 4096"),
        ("parity", {"tolerance": 2 * TOLERANCE}, r"parity\.tolerance: must be at most 2e-06"),
        ("shape", {"hidden": 10**9}, r"encoder\.onnx: vectors of \[24\] numbers, and .+ \[10+\]"),
        ("shape", {"vocabulary": 279}, r"the tokenizer has 280 tokens, the network 279"),
    ],
)
def test_sizes_that_are_not_the_graphs_or_without_bounds_are_refused(
    part: str, value: dict[str, float], fault: str, copy: Path
) -> None:
    rewrite(copy, **{part: value})
    with pytest.raises(BundleError, match=fault):
        TextEncoder.open(copy)


def swap(bundle: Path, first: str, second: str) -> None:
    content = (bundle / first).read_bytes()
    (bundle / first).write_bytes((bundle / second).read_bytes())
    (bundle / second).write_bytes(content)


@pytest.mark.parametrize("other", ["encoder.long.onnx", GOLDEN])
def test_another_graph_of_the_same_bundle_is_refused(other: str, copy: Path) -> None:
    swap(copy, "encoder.onnx", other)
    rewrite(copy)
    with pytest.raises(BundleError, match=r"encoder\.onnx: (another graph|onnxruntime .+ cannot)"):
        TextEncoder.open(copy)


def test_another_graph_for_long_texts_is_refused_by_the_first(copy: Path) -> None:
    shutil.copyfile(copy / "encoder.onnx", copy / "encoder.long.onnx")
    rewrite(copy, lengths={"packed": 8})
    encoder = TextEncoder.open(copy)
    with pytest.raises(BundleError, match=r"encoder\.long\.onnx: another graph than its name says"):
        encoder.encode(["tree " * 30])


def test_a_graph_that_fails_names_its_file(copy: Path, bundle: Path) -> None:
    encoder = TextEncoder.open(copy)
    tokens = encoder.tokenizer.encode(["the tree"], 9)
    tokens.ids[1] = 10**6
    with pytest.raises(BundleError, match=r"encoder\.onnx: fails: "):
        encoder.vectors(tokens)


def swapped_tokens(content: dict[str, dict[str, dict[str, int]]]) -> None:
    """Swap two letters: the ids are others, their number is not."""
    vocabulary = content["model"]["vocab"]
    vocabulary["t"], vocabulary["e"] = vocabulary["e"], vocabulary["t"]


def without_merges(content: dict[str, dict[str, list[str]]]) -> None:
    content["model"]["merges"] = []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (swapped_tokens, r"a vector on this machine differs from the network's"),
        (without_merges, r"golden text"),
    ],
)
def test_another_tokenizer_is_refused(
    change: Callable[[dict[str, object]], None], fault: str, copy: Path
) -> None:
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    rewrite(copy)
    with pytest.raises(BundleError, match=fault):
        verify(copy)


def test_another_count_of_tokens_is_refused(copy: Path) -> None:
    golden = GoldenTexts.load(copy / GOLDEN)
    golden.tokens[3] += 1
    golden.save(copy / GOLDEN)
    rewrite(copy)
    with pytest.raises(ParityError, match=r"golden text 3 has \d+ tokens here and \d+ at the"):
        verify(copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.weights", "tokenizer.json", MANIFEST])
def test_a_file_that_is_a_link_is_refused(name: str, copy: Path, tmp_path: Path) -> None:
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleError, match=rf"{name}: cannot be opened: a symbolic link"):
        EncoderBundle.open(copy)


def test_the_digest_is_of_every_file_that_answers_depend_on(copy: Path) -> None:
    """Caches and catalogues go by it; golden answers change no vector."""
    before = EncoderBundle.open(copy).digest
    for name in sorted(json.loads((copy / MANIFEST).read_text())["files"]):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b" ")
        rewrite(copy)
        assert (EncoderBundle.open(copy).digest == before) == (name == GOLDEN)
        (copy / name).write_bytes(content)


class OffAlone(TextEncoder):
    """Encodes a text wrongly if it has no company."""

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> Encoded:
        found = super().encode(texts, truncate=truncate)
        return found if len(texts) > 1 else replace(found, vectors=found.vectors + np.float32(1e-5))


def test_golden_texts_are_compared_alone_as_well_as_together(bundle: Path) -> None:
    golden = GoldenTexts.load(bundle / GOLDEN)
    assert check_golden(TextEncoder.open(bundle), golden).cases == len(golden.tokens)
    with pytest.raises(ParityError, match="differs from the network's by 1"):
        check_golden(OffAlone.open(bundle), golden)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "", ".", "a\n"])
def test_a_file_beyond_the_folder_is_refused(name: str, copy: Path) -> None:
    file = copy / MANIFEST
    manifest = json.loads(file.read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "size": 0}
    file.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="must match"):
        EncoderBundle.open(copy)


@pytest.mark.parametrize("text", ["Z", " ", "\x00", "🙂", "\u0301", "tree ", "\u200b", "漢"])
def test_a_text_of_a_million_characters_is_cut_or_refused_by_name(text: str, bundle: Path) -> None:
    encoder = TextEncoder.open(bundle)
    whole = text * (1_000_000 // len(text))
    encoded = encoder.encode(["tree", whole], truncate=True)
    assert encoded.truncated.tolist() == [False, True]
    assert np.isfinite(encoded.vectors).all()
    with pytest.raises(TextTooLong, match=r"^text 1 \('.{1,400}'…\): .+at most 300 are read"):
        encoder.encode(["tree", whole])


def test_threads_share_an_encoder_and_a_bounded_cache(bundle: Path) -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 60))) for _ in range(60)]
    wanted = TextEncoder.open(bundle).encode(texts).vectors
    room = 20
    cache = VectorCache(room * 496)  # 24 numbers and an entry's overhead
    encoder = TextEncoder.open(bundle, cache=cache)

    def run(seed: int) -> float:
        own = np.random.default_rng(seed)
        worst = 0.0
        for _ in range(8):
            some = own.permutation(len(texts))[: own.integers(1, 20)].tolist()
            given = [texts[i] for i in some]
            if seed % 4 == 0:
                with pytest.raises(TextError, match=f"^text {len(given)} "):
                    encoder.encode([*given, ""])
            found = encoder.encode(given).vectors
            worst = max(worst, float(np.abs(found - wanted[some]).max()))
            assert len(cache) <= room
        return worst

    with ThreadPoolExecutor(12) as threads:
        assert max(threads.map(run, range(24))) <= 2 * TOLERANCE


def at_most(bundle: Path, longest: int) -> TextEncoder:
    """Open a bundle as one that ``build --longest`` made: its graphs have no limit themselves."""
    opened = EncoderBundle.open(bundle)
    lengths = opened.manifest.lengths.model_copy(update={"longest": longest})
    return TextEncoder(
        replace(opened, manifest=opened.manifest.model_copy(update={"lengths": lengths}))
    )


def test_beyond_8192_tokens_a_text_is_refused_cut_if_asked_or_read_if_the_build_allowed_it(
    bundle: Path,
) -> None:
    text = "Z" * 8190  # and a space before it, and two special tokens
    published = at_most(bundle, 8192)
    with pytest.raises(TextTooLong, match=r"^text 1 .+: 8,193 tokens, at most 8,192 are read"):
        published.encode(["tree", text])
    cut = published.encode([text], truncate=True)
    assert (cut.tokens[0], cut.truncated[0]) == (8192, True)
    whole = at_most(bundle, 8200).encode([text])
    assert (whole.tokens[0], whole.truncated[0]) == (8193, False)
    assert np.abs(whole.vectors - cut.vectors).max() > 0
    assert 0 in whole.certificates
