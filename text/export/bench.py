"""Times packs against the plain export, padded: the same texts, one run, interleaved."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.bench.interleave import Run, medians
from model_export.bundle.errors import BundleError
from model_export.bundle.sessions import open_session
from text.corpus.corpus import Corpus
from text.encoder.jinabert import JinaBert
from text.export.plain import save_plain
from text.runtime.bundle import EncoderBundle
from text.runtime.manifest import INT8, PACKED
from text.runtime.packed_graph import PackedGraph
from text.runtime.packs import pack
from text.tokenizer import TextTokenizer, Tokens

BATCH = 32
FORMATS = ("avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
BARS = {"unsorted_over_packs": 2.5, "sorted_over_packs": 1.1, "packs_over_int8": 1.8}
Vectors = NDArray[np.float32]
FromTexts = tuple[int, Callable[[], object]]  # how many of the texts, the first ones, are encoded


@dataclass(frozen=True, slots=True)
class Packing:
    """Least tokens of a row, tokens of a run."""

    row: int
    call: int

    @classmethod
    def parse(cls, text: str) -> Packing:
        """Read ``ROW:CALL``. Raises BundleError."""
        row, _, call = text.partition(":")
        if not (row.isdecimal() and call.isdecimal() and int(row) and int(call)):
            raise BundleError(f"--pack {text}: must be ROW:CALL, as 32:512")
        return cls(int(row), int(call))

    def __str__(self) -> str:
        return f"packs {self.row}:{self.call}"

    def places(self, tokens: Tokens) -> int:
        """Count the graph's tokens, padding included."""
        packs = pack(tokens.lengths.tolist(), self.row, self.call)
        return sum(each.length * len(each.rows) for each in packs)


class PlainExport:
    """The plain export in padded batches."""

    def __init__(self, network: JinaBert, folder: Path, threads: int) -> None:
        file = folder / "plain.onnx"
        save_plain(network, file)
        self._session = open_session(file, threads)
        self._width = network.sizes.hidden

    def vectors(self, tokens: Tokens, batches: Sequence[NDArray[np.int64]]) -> Vectors:
        """Return unit vectors (N, D)."""
        vectors = np.empty((len(tokens), self._width), np.float32)
        for rows in batches:
            lengths = tokens.lengths[rows]
            mask = np.arange(lengths.max()) < lengths[:, None]  # (B, L)
            ids = np.full(mask.shape, tokens.pad, np.int64)
            ids[mask] = np.concatenate(
                [tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]] for i in rows]
            )
            feed = {"ids": ids, "mask": mask.astype(np.int64)}
            (vectors[rows],) = self._session.run(None, feed)
        return vectors


def drawn(
    corpus: Corpus, tokenizer: TextTokenizer, count: int, longest: int
) -> tuple[list[str], Tokens, int]:
    """Draw texts of at most ``longest`` tokens; return them, their tokens, how many were longer."""
    texts = corpus.texts()["text"]
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    chosen = texts.take(order).to_pylist()
    fits = tokenizer.encode(chosen, longest + 1).lengths <= longest
    kept = [text for text, fit in zip(chosen, fits, strict=True) if fit]
    return kept, tokenizer.encode(kept, longest), int((~fits).sum())


def batches_of(tokens: Tokens, is_sorted: bool) -> list[NDArray[np.int64]]:
    """Divide texts into batches, in the order given or by length."""
    order = np.arange(len(tokens))
    if is_sorted:
        order = np.argsort(tokens.lengths, kind="stable")
    return np.split(order, range(BATCH, len(order), BATCH))


def padded_places(tokens: Tokens, batches: Sequence[NDArray[np.int64]]) -> int:
    """Count tokens, padding included."""
    return sum(int(tokens.lengths[rows].max()) * len(rows) for rows in batches)


def run(
    bundle: EncoderBundle,
    network: JinaBert,
    tokens: Tokens,
    folder: Path,
    *,
    packings: Sequence[Packing] = (),
    threads: int = 1,
    seconds: float = 20.0,
    from_texts: Mapping[str, FromTexts] | None = None,
) -> dict[str, Any]:
    """Time all subjects; ``folder`` is for the plain export, ``from_texts`` start untokenised."""
    lengths = bundle.manifest.lengths
    own = Packing(lengths.row, lengths.call)
    subjects: dict[str, Run] = {}
    places: dict[str, int] = {}
    answers: dict[str, Callable[[], Vectors]] = {}

    def add(name: str, run: Callable[[], Vectors], tokens_run: int) -> None:
        subjects[name] = answers[name] = run
        places[name] = tokens_run

    def packs(name: str, graph: str, packing: Packing) -> None:
        opened = PackedGraph(bundle.graph(graph), threads, packing.row, packing.call)
        add(name, lambda: opened.vectors(tokens), packing.places(tokens))

    packs("packs", PACKED, own)
    if INT8 in bundle.manifest.graphs:
        packs("packs_int8", INT8, own)
    for packing in packings:
        packs(str(packing), PACKED, packing)
    plain = PlainExport(network, folder, threads)
    for name, is_sorted in (("padded_sorted", True), ("padded_unsorted", False)):
        chosen = batches_of(tokens, is_sorted)
        add(name, lambda c=chosen: plain.vectors(tokens, c), padded_places(tokens, chosen))  # type: ignore[misc]

    exact = answers["padded_sorted"]()
    errors = {name: float(np.abs(answer() - exact).max()) for name, answer in answers.items()}
    others = dict(from_texts or {})
    timed = medians(subjects | {name: run for name, (_, run) in others.items()}, seconds)
    total = int(tokens.lengths.sum())
    texts = {name: others[name][0] if name in others else len(tokens) for name in timed}
    result: dict[str, Any] = {
        "processor": processor(),
        "texts": len(tokens),
        "tokens": total,
        "longest": int(tokens.lengths.max()),
        "threads": threads,
        "subjects": {
            name: {
                "ms": reading.ms,
                "repeats": reading.repeats,
                "texts": texts[name],
                "texts_per_second": texts[name] / reading.ms * 1e3,
                "tokens_per_second": int(tokens.offsets[texts[name]]) / reading.ms * 1e3,
                **({"places_per_token": places[name] / total} if name in places else {}),
                **({"max_abs_difference": errors[name]} if name in errors else {}),
            }
            for name, reading in timed.items()
        },
    }
    result["ratios"] = {
        "unsorted_over_packs": timed["padded_unsorted"].ms / timed["packs"].ms,
        "sorted_over_packs": timed["padded_sorted"].ms / timed["packs"].ms,
    }
    if "packs_int8" in timed:
        result["ratios"]["packs_over_int8"] = timed["packs"].ms / timed["packs_int8"].ms
    result["bars"] = [
        {"bar": name, "value": value, "limit": BARS[name], "met": value >= BARS[name]}
        for name, value in result["ratios"].items()
    ]
    return result


def processor() -> str:
    """Name the processor and what it has for other number formats."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    found = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    formats = [f for f in FORMATS if f in found.get("flags", "").split()]
    return " ".join([found.get("model name", platform.machine()), *formats])
