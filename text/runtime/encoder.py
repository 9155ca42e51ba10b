"""Encodes texts with an encoder bundle: unit vectors, exact in any company, and content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.errors import BundleError
from model_export.bundle.signature import PublicKeys
from text.runtime.bundle import REBUILD, EncoderBundle
from text.runtime.cache import Entry, VectorCache
from text.runtime.chunks import Chunks, Span, check_spans, overlapping, pooled
from text.runtime.errors import TextError, TextTooLong
from text.runtime.graphs import Graphs
from text.runtime.inputs import check_text, spans_of, texts_of
from text.runtime.long import LongGraph
from text.runtime.manifest import INT8, LONG, PACKED, Precision
from text.runtime.packed_graph import Call, PackedGraph, here
from text.runtime.windows import Certificate
from text.tokenizer import TextTokenizer, TokenizerError, Tokens

SPECIAL = 2  # tokens around a text's own
MOST_COUNTED = 16  # times the longest length: a longer text's tokens are not counted to the end
MOST_OFF = 1e-3  # of a unit vector's length from 1
NOT_FINITE = "its vector is not finite; check the encoder's weights"
GRAPHS: dict[Precision, str] = {"fp32": PACKED, "int8": INT8}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Answers in the order of the texts."""

    vectors: NDArray[np.float32]  # (N, D), unit length
    tokens: NDArray[np.int64]  # (N,) read of each text, special tokens included
    truncated: NDArray[np.bool_]  # (N,) texts whose end was cut
    certificates: dict[int, Certificate] = field(default_factory=dict)  # of long ones, by place
    content: NDArray[np.float32] | None = None  # (N, C), where the bundle has a map to it


class TextEncoder:
    """Encodes texts; safe to use from several threads."""

    def __init__(
        self,
        bundle: EncoderBundle,
        threads: int = 1,
        precision: Precision = "fp32",
        cache: VectorCache | None = None,
        through: Call = here,
    ) -> None:
        """``through`` is what calls the graphs, on another thread perhaps."""
        if precision not in GRAPHS:
            raise ValueError(f"precision: {precision!r}: must be {' or '.join(GRAPHS)}")
        self.bundle, self.manifest = bundle, bundle.manifest
        name = GRAPHS[precision]
        if name not in self.manifest.graphs:
            raise BundleError(
                f"{bundle.path}: holds no {precision} graph; build it with "
                f"`python -m text build CHECKPOINT --{precision}`"
            )
        try:
            self.tokenizer = TextTokenizer.load(bundle.path)
        except TokenizerError as error:
            raise BundleError(f"{error}; {REBUILD}") from error
        if self.tokenizer.vocabulary > self.manifest.shape.vocabulary:
            raise BundleError(
                f"{bundle.path}: the tokenizer has {self.tokenizer.vocabulary:,} tokens, the "
                f"network {self.manifest.shape.vocabulary:,}; {REBUILD}"
            )
        lengths = self.manifest.lengths
        self.content_map = bundle.content_map() if precision == "fp32" else None
        has_content, has_long = self.content_map is not None, LONG in self.manifest.graphs
        packed = PackedGraph(
            bundle.graph(name),
            threads,
            lengths.row,
            lengths.call,
            content=has_content,
            through=through,
        )
        said = [self.width, *([self.content_map.about.size] if self.content_map else [])]
        if packed.widths != said:
            raise BundleError(
                f"{bundle.graph(name)}: vectors of {packed.widths} numbers, and the manifest says "
                f"{said}; {REBUILD}"
            )
        long = LongGraph(bundle.graph(LONG), threads, content=has_content, through=through)
        self._long = long if has_long else None
        self._graph = Graphs(packed, self._long, lengths.packed)
        # The longest text, too: bundles of one digest may cut a text at different lengths.
        self._cache, self._key = cache, f"{bundle.digest} {precision} {lengths.longest}"

    @classmethod
    def open(
        cls,
        folder: Path | str,
        threads: int = 1,
        *,
        precision: Precision = "fp32",
        cache: VectorCache | None = None,
        keys: PublicKeys | None = None,
    ) -> TextEncoder:
        """Open a bundle's folder. Raises BundleError, and ValueError for another precision."""
        return cls(EncoderBundle.open(folder, keys), threads, precision, cache)

    @property
    def width(self) -> int:
        """D, numbers of a vector."""
        return self.manifest.shape.hidden

    @property
    def content_digest(self) -> str | None:
        """Digest that content of this encoder and its map carries; None where there is no map."""
        said = self.manifest.content
        return said.digest if said and self.content_map else None

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> Encoded:
        """Encode texts. Raises TextError, which names the text, and encodes none then.

        A text of more tokens than the bundle allows is cut if ``truncate``, else TextTooLong.
        InputTypeError: a str in place of a list, or something in the list that is no str.
        """
        texts = texts_of(texts)
        sizes = self.content_map.about.size if self.content_map else 0
        answer = Encoded(
            np.empty((len(texts), self.width + sizes), np.float32),
            np.zeros(len(texts), np.int64),
            np.zeros(len(texts), np.bool_),
        )
        wanted = self._not_cached(texts, truncate, answer)
        if wanted:
            self._fill(texts, wanted, truncate, answer)
        if not self.content_map:
            return answer
        parts = np.split(answer.vectors, [self.width], axis=1)
        vectors, content = map(np.ascontiguousarray, parts)
        return replace(answer, vectors=vectors, content=content)

    def vectors(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return unit vectors (N, D) of tokenised texts."""
        return self._graph.vectors(tokens)[0][:, : self.width]

    def chunks(self, text: str, spans: Sequence[Span], *, truncate: bool = False) -> Chunks:
        """Encode a text once, and pool its tokens over spans of characters (late chunking).

        Raises TextError as ``encode`` does, SpanError, which names the span, and InputTypeError.
        """
        check_text("text", text)
        spans = spans_of(spans)
        if self._long is None:
            raise BundleError(f"{self.bundle.path}: holds no graph for long texts; {REBUILD}")
        check_spans(spans, len(text))
        tokens, truncated = self._tokenised([text], [0], truncate)
        ids, places = self.tokenizer.encode_placed(text, int(tokens.lengths[0]))
        answer = self._long.encode(ids, tokens=True)
        if answer.token is None or not self._is_unit(answer.vector[None])[0]:
            raise TextError(0, text, NOT_FINITE)
        vectors, counts = pooled(answer.token, places, spans)
        if not self._is_unit(vectors).all():
            raise TextError(0, text, NOT_FINITE)
        cut, whole = bool(truncated[0]), answer.vector[: self.width]
        certificate = answer.certificate
        return Chunks(vectors, counts, overlapping(spans), cut, certificate, whole, len(ids))

    # For ``steps``, which does the same in pieces.

    @property
    def graphs(self) -> Graphs:
        return self._graph

    @property
    def cache(self) -> VectorCache | None:
        return self._cache

    def key(self, text: str, *, alone: bool = False) -> bytes:
        """Return the key of a text in the cache; another one if it was encoded by itself."""
        return VectorCache.key(f"{self._key} alone" if alone else self._key, text)

    def tokenised(
        self, texts: Sequence[str], wanted: list[int], truncate: bool
    ) -> tuple[Tokens, NDArray[np.bool_]]:
        """Tokenise the texts at the places ``wanted``, and say which were cut. TextError."""
        return self._tokenised(texts, wanted, truncate)

    def _not_cached(self, texts: Sequence[str], truncate: bool, answer: Encoded) -> list[int]:
        """Fill in what the cache has; return the places of the other texts."""
        if self._cache is None:
            return list(range(len(texts)))
        missing = []
        for i, text in enumerate(texts):
            entry = self._cache.get(VectorCache.key(self._key, text))
            if entry is None or (entry.truncated and not truncate):
                missing.append(i)
                continue
            answer.vectors[i], answer.tokens[i] = entry.vector, entry.tokens
            answer.truncated[i] = entry.truncated
        return missing

    def _fill(
        self, texts: Sequence[str], wanted: list[int], truncate: bool, answer: Encoded
    ) -> None:
        tokens, truncated = self._tokenised(texts, wanted, truncate)
        vectors, certificates = self._graph.vectors(tokens)
        for place in np.flatnonzero(~self._is_unit(vectors)).tolist():
            self._refuse_alone(texts, wanted, tokens, vectors, place)
        answer.vectors[wanted], answer.tokens[wanted] = vectors, tokens.lengths
        answer.truncated[wanted] = truncated
        answer.certificates.update((wanted[place], each) for place, each in certificates.items())
        if self._cache is not None:
            for place, i in enumerate(wanted):
                entry = Entry(
                    vectors[place].copy(), int(tokens.lengths[place]), bool(truncated[place])
                )
                self._cache.put(VectorCache.key(self._key, texts[i]), entry)

    def _tokenised(
        self, texts: Sequence[str], wanted: list[int], truncate: bool
    ) -> tuple[Tokens, NDArray[np.bool_]]:
        for i in wanted:
            _refuse_surrogates(i, texts[i])
        longest = self.manifest.lengths.longest
        # One token more than is read shows which texts are longer.
        tokens = self.tokenizer.encode([texts[i] for i in wanted], longest + 1)
        empty = tokens.lengths <= SPECIAL
        if empty.any():
            i = wanted[int(np.flatnonzero(empty)[0])]
            raise TextError(i, texts[i], "no tokens: an empty text has no vector; leave it out")
        truncated = tokens.lengths > longest
        if not truncated.any():
            return tokens, truncated
        if not truncate:
            i = wanted[int(np.flatnonzero(truncated)[0])]
            raise self._too_long(i, texts[i])
        return self.tokenizer.encode([texts[i] for i in wanted], longest), truncated

    def _too_long(self, i: int, text: str) -> TextTooLong:
        longest = self.manifest.lengths.longest
        most = MOST_COUNTED * longest
        count = int(self.tokenizer.encode([text], most + 1).lengths[0])
        said = f"{count:,}" if count <= most else f"more than {most:,}"
        return TextTooLong(i, text, said, longest, count)

    def _refuse_alone(
        self,
        texts: Sequence[str],
        wanted: list[int],
        tokens: Tokens,
        vectors: NDArray[np.float32],
        place: int,
    ) -> None:
        """Encode a text alone: not a number in one text spoils all of its row."""
        vectors[place] = self._graph.alone(tokens, place)
        if not self._is_unit(vectors[place : place + 1])[0]:
            i = wanted[place]
            raise TextError(i, texts[i], NOT_FINITE)

    def _is_unit(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(N,) whether each vector is finite and has length 1; its content is affine in it."""
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(vectors[:, : self.width], axis=1)
            near: NDArray[np.bool_] = np.abs(lengths - 1) <= MOST_OFF
        return near


def _refuse_surrogates(i: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            i, text, f"not valid Unicode: a lone surrogate at character {error.start}"
        ) from None
