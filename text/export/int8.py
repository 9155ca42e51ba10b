"""Builds the graph with int8 products and puts it through its gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from model_export.bundle.errors import BundleError
from model_export.graphs.onnx_writer import GraphWriter
from text.corpus.corpus import Corpus
from text.export.folded import FoldedEncoder
from text.export.gate import GateData, measure, refuse
from text.export.quantised import Observed, observed, packed_int8, products
from text.export.shared_weights import save
from text.runtime.bundle import EncoderBundle
from text.runtime.manifest import INT8, PACKED, WEIGHTS, Gate
from text.runtime.packed_graph import PackedGraph
from text.tokenizer import TextTokenizer

OBSERVED = 500  # training texts


@dataclass(frozen=True, slots=True)
class Int8:
    """Build a graph with int8 products, too, if it passes its gate on a corpus."""

    corpus: Corpus
    kept: tuple[str, ...] = ()  # products left in float32
    force: bool = False  # publish even if the gate fails, which the manifest records


@dataclass(frozen=True, slots=True)
class Quantised:
    """An encoder whose activations were observed on texts."""

    encoder: FoldedEncoder
    tokenizer: TextTokenizer
    wanted: Int8
    seen: Observed
    row: int
    call: int

    @classmethod
    def of(
        cls, encoder: FoldedEncoder, tokenizer: TextTokenizer, wanted: Int8, row: int, call: int
    ) -> Quantised:
        """Observe training texts. Raises BundleError where there are none, and for unknown products
        to keep.
        """
        names = products(encoder)
        for name in wanted.kept:
            if name not in names:
                raise BundleError(f"--keep {name}: the products are {', '.join(names)}")
        texts = wanted.corpus.texts(split="train")["text"]
        if not len(texts):
            raise BundleError(
                f"{wanted.corpus.folder}: no training texts, whose activations int8 is made for; "
                "give another corpus as --data"
            )
        some = texts.take(list(range(0, len(texts), max(1, len(texts) // OBSERVED))))
        tokens = tokenizer.encode(some.to_pylist(), call)
        with TemporaryDirectory() as folder:
            seen = observed(encoder, tokens, row, call, Path(folder))
        return cls(encoder, tokenizer, wanted, seen, row, call)

    def graph(self) -> GraphWriter:
        return packed_int8(self.encoder, self.seen, self.wanted.kept)

    def through_the_gate(self, bundle: EncoderBundle) -> Gate:
        """Measure the bundle's graphs. Raises GateError if the gate fails, unless forced."""
        data = GateData.of(self.wanted.corpus, self.tokenizer, self.call)
        exact, quick = (self._open(bundle.graph(name)) for name in (PACKED, INT8))
        wanted = self.wanted
        gate = measure(data, exact.vectors, quick.vectors, list(wanted.kept), wanted.force)
        if not (gate.passed or gate.forced):
            refuse(bundle.manifest.version, gate, self.alone(data, exact))
        return gate

    def alone(self, data: GateData, exact: PackedGraph) -> dict[str, Gate]:
        """Measure each product in int8 alone."""
        names, gates = products(self.encoder), {}
        for name in names:
            others = [other for other in names if other != name]
            with TemporaryDirectory() as folder:
                save([packed_int8(self.encoder, self.seen, others)], Path(folder), WEIGHTS)
                one = self._open(Path(folder) / f"{INT8}.onnx")
                gates[name] = measure(data, exact.vectors, one.vectors, others, False)
        return gates

    def _open(self, graph: Path) -> PackedGraph:
        return PackedGraph(graph, 1, self.row, self.call)
