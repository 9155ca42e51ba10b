"""Encodes a list of texts in steps, short enough for a server to interleave several lists.

First ``read`` every part, then do every ``run``: each in any order, from any thread. The vectors do
not depend on that order, since each part is packed by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text.runtime.cache import Entry
from text.runtime.encoder import MOST_OFF, NOT_FINITE, SPECIAL, Encoded, TextEncoder
from text.runtime.errors import TextError, TextTooLong
from text.runtime.packs import Pack
from text.tokenizer import Tokens

# Of a part: about a millisecond of tokenising, and enough texts to fill rows.
PART_TEXTS, PART_CHARACTERS = 32, 32_768
TokenIds = NDArray[np.int32]  # (L,) of a text, special tokens aside


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a graph: a pack of a part's texts, or a long text by its place there."""

    tokens: Tokens  # of the part's texts that are not cached
    places: list[int]  # of these in the whole list
    texts: list[int]  # which of them this run encodes
    pack: Pack | None  # None: the one text, by the graph for long ones
    longest: int  # tokens of its longest text

    @property
    def size(self) -> int:
        """Tokens."""
        return int(self.tokens.lengths[self.texts].sum())


class EncodingSteps:
    """One list of texts on its way to vectors; all are texts, or all are token ids."""

    def __init__(
        self,
        encoder: TextEncoder,
        texts: Sequence[str] | Sequence[TokenIds],
        truncate: bool,
        *,
        alone: bool = False,
    ) -> None:
        """``alone``: no two texts in one run, so that a text's numbers are the same bits in any
        list; in company their last digits may differ."""
        self._encoder, self._texts, self._truncate = encoder, texts, truncate
        self._alone, count, content = alone, len(texts), encoder.content_map
        self.parts = [range(i, i + 1) for i in range(count)] if alone else list(_parts(texts))
        self.runs: list[Run] = []  # complete once every part was read
        self.cached = 0  # texts whose answers the cache had
        self.answer = Encoded(
            np.empty((count, encoder.width), np.float32),
            np.zeros(count, np.int64),
            np.zeros(count, np.bool_),
            content=np.empty((count, content.about.size), np.float32) if content else None,
        )

    def read(self, part: int) -> None:
        """Look up or tokenise a part. Raises TextError, which names the text."""
        wanted = [i for i in self.parts[part] if not self._is_cached(i)]
        if not wanted:
            return
        tokens, truncated = self._tokenised(wanted)
        self.answer.tokens[wanted], self.answer.truncated[wanted] = tokens.lengths, truncated
        self.runs.extend(self._planned(tokens, wanted))

    def run(self, number: int) -> None:
        """Encode the texts of a run. Raises TextError for a vector that is not finite."""
        run, graphs = self.runs[number], self._encoder.graphs
        if run.pack is None:
            assert graphs.long is not None, "planned with it"
            (text,) = run.texts
            long = graphs.long.encode(run.tokens.of(text))
            vectors = long.vector[None]
            self.answer.certificates[run.places[text]] = long.certificate
        else:
            vectors = graphs.packed.run(run.pack, run.tokens)
        for row in np.flatnonzero(~self._are_units(vectors)).tolist():
            # Not a number in one text spoils all of its row: encoded alone, the others are right.
            vectors[row] = graphs.alone(run.tokens, run.texts[row])
            if not self._are_units(vectors[row : row + 1])[0]:
                place = run.places[run.texts[row]]
                raise TextError(place, self._shown(place), NOT_FINITE)
        for text, vector in zip(run.texts, vectors, strict=True):
            self._keep(run.places[text], vector)

    def _tokenised(self, wanted: list[int]) -> tuple[Tokens, NDArray[np.bool_]]:
        if isinstance(self._texts[0], str):
            return self._encoder.tokenised(self._texts, wanted, self._truncate)  # type: ignore[arg-type]
        tokenizer, longest = self._encoder.tokenizer, self._encoder.manifest.lengths.longest
        rows, truncated = [], np.zeros(len(wanted), np.bool_)
        for row, i in enumerate(wanted):
            own = without_ends(np.asarray(self._texts[i]), tokenizer.start, tokenizer.end)
            if not len(own):
                raise TextError(i, "", "no tokens: an empty text has no vector; leave it out")
            truncated[row] = len(own) + SPECIAL > longest
            if truncated[row] and not self._truncate:
                count = len(own) + SPECIAL
                raise TextTooLong(i, "", f"{count:,}", longest, count)
            rows.append([tokenizer.start, *own[: longest - SPECIAL], tokenizer.end])
        ids = np.concatenate(rows).astype(np.int32)
        offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        return Tokens(ids, np.zeros_like(ids), offsets, tokenizer.pad), truncated

    def _planned(self, tokens: Tokens, wanted: list[int]) -> Iterator[Run]:
        graphs, lengths = self._encoder.graphs, tokens.lengths
        is_long = (lengths > graphs.most_packed) & (graphs.long is not None)
        for text in np.flatnonzero(is_long).tolist():
            yield Run(tokens, wanted, [text], None, int(lengths[text]))
        short = np.flatnonzero(~is_long)
        packed, places = tokens.take(short), [wanted[text] for text in short.tolist()]
        for pack in graphs.packed.packs(packed.lengths):
            texts = list(pack.texts)
            yield Run(packed, places, texts, pack, int(packed.lengths[texts].max()))

    def _is_cached(self, i: int) -> bool:
        text, cache = self._texts[i], self._encoder.cache
        if cache is None or not isinstance(text, str):
            return False
        entry = cache.get(self._encoder.key(text, alone=self._alone))
        if entry is None or (entry.truncated and not self._truncate):
            return False
        self._fill(i, entry.vector)
        self.answer.tokens[i] = entry.tokens
        self.answer.truncated[i] = entry.truncated
        self.cached += 1
        return True

    def _keep(self, i: int, vector: NDArray[np.float32]) -> None:
        answer, text, cache = self.answer, self._texts[i], self._encoder.cache
        self._fill(i, vector)
        if cache is not None and isinstance(text, str):
            entry = Entry(vector.copy(), int(answer.tokens[i]), bool(answer.truncated[i]))
            cache.put(self._encoder.key(text, alone=self._alone), entry)

    def _fill(self, i: int, found: NDArray[np.float32]) -> None:
        vector, content = np.split(found, [self._encoder.width])
        self.answer.vectors[i] = vector
        if self.answer.content is not None:
            self.answer.content[i] = content

    def _are_units(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(vectors[:, : self._encoder.width], axis=1)
            near: NDArray[np.bool_] = np.abs(lengths - 1) <= MOST_OFF
        return near

    def _shown(self, i: int) -> str:
        text = self._texts[i]
        return text if isinstance(text, str) else ""


def without_ends(ids: TokenIds, start: int, end: int) -> TokenIds:
    """Return ids without the special tokens around them, if both are there."""
    if len(ids) >= SPECIAL and ids[0] == start and ids[-1] == end:
        return ids[1:-1]
    return ids


def _parts(texts: Sequence[str] | Sequence[TokenIds]) -> Iterator[range]:
    start = characters = 0
    for i, text in enumerate(texts):
        if i > start and (i - start == PART_TEXTS or characters + len(text) > PART_CHARACTERS):
            yield range(start, i)
            start, characters = i, 0
        characters += len(text)
    if len(texts):
        yield range(start, len(texts))
