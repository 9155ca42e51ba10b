"""Turns a corpus into the rows of the stages: tokens, families, scores, hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from text.corpus.corpus import Corpus
from text.encoder.batches import generator_of
from text.encoder.jinabert import JinaBert
from text.encoder.recipe import MultiTask
from text.encoder.stages import GradedRows, PairRows, QueryRows
from text.encoder.vectors import embed
from text.tokenizer import TextTokenizer, Tokens
from training.progress import OnProgress, no_progress

WHOLE = 1 << 20  # tokens of a text before it is cut into windows
LEAST = 16  # rows of a kind; with fewer, a batch would repeat itself
SKIPPED, MINED = 5, 40  # nearest passages left out (often right answers too), and taken
FARTHER = 4.0  # beyond any difference of cosines
BLOCK = 1024  # queries compared at a time


def sampled_texts(corpus: Corpus, seed: int) -> list[str]:
    """Return training texts for the tokenizer: as many characters of each language."""
    texts = corpus.texts(split="train")
    generator = np.random.default_rng(seed)
    by_language = []
    for lang in corpus.languages:
        own = texts.filter(pc.equal(texts["lang"], lang))["text"].to_pylist()
        by_language.append([own[i] for i in generator.permutation(len(own))])
    by_language = [own for own in by_language if own]
    least = min((sum(map(len, own)) for own in by_language), default=0)
    chosen = []
    for own in by_language:
        taken = np.cumsum([len(text) for text in own])
        chosen += own[: int(np.searchsorted(taken, least)) + 1]
    return chosen


def masked_rows(
    corpus: Corpus, tokenizer: TextTokenizer, longest: int
) -> tuple[Tokens, list[NDArray[np.int64]]]:
    """Return training texts in windows of at most ``longest`` tokens, and each language's rows."""
    texts = corpus.texts(split="train")
    windows, owner = windows_of(tokenizer.encode(texts["text"].to_pylist(), WHOLE), longest)
    langs = np.asarray(texts["lang"].to_pylist())[owner]
    return windows, [np.flatnonzero(langs == lang) for lang in corpus.languages]


def frequencies(
    tokens: Tokens, groups: Sequence[NDArray[np.int64]], vocabulary: int
) -> torch.Tensor:
    """Return each token's share (V,) of the texts, as many of each group; special tokens: 0."""
    group = np.full(len(tokens), -1)
    for number, rows in enumerate(groups):
        group[rows] = number
    of_token = np.where(tokens.words < 0, -1, np.repeat(group, tokens.lengths))
    shares = np.zeros(vocabulary)
    for number in range(len(groups)):
        counts = np.bincount(tokens.ids[of_token == number], minlength=vocabulary)
        shares += counts / max(1, counts.sum()) / len(groups)
    return torch.from_numpy(shares)


def windows_of(tokens: Tokens, longest: int) -> tuple[Tokens, NDArray[np.int64]]:
    """Cut texts into windows with special tokens of their own; return them and whose each is."""
    room = longest - 2
    ids, words, lengths, owner = [], [], [], []
    for text in range(len(tokens)):
        start, stop = int(tokens.offsets[text]) + 1, int(tokens.offsets[text + 1]) - 1
        before, after = tokens.ids[start - 1 : start], tokens.ids[stop : stop + 1]
        for at in range(start, stop, room):
            part = slice(at, min(at + room, stop))
            ids.append(np.concatenate((before, tokens.ids[part], after)))
            words.append(np.concatenate(([-1], tokens.words[part], [-1])).astype(np.int32))
            lengths.append(len(words[-1]))
            owner.append(text)
    empty = np.empty(0, np.int32)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    cut = Tokens(
        np.concatenate(ids) if ids else empty,
        np.concatenate(words) if words else empty,
        offsets,
        tokens.pad,
    )
    return cut, np.asarray(owner, np.int64)


class PairKind(NamedTuple):
    """Pairs of one source, kind and languages: rows of the table, and the kind."""

    rows: NDArray[np.int64]
    kind: str  # translation (into another language), word, title or another; paraphrases: empty


def pair_kinds(pairs: pa.Table) -> list[PairKind]:
    """Return the kinds of pairs that have enough groups, of a table of pairs."""
    family, kinds = codes(pairs["group"]), []
    for chosen in _kinds(pairs, ("source", "kind", "lang_a", "lang_b")):
        if len(np.unique(family[chosen])) >= LEAST:
            row = pairs.slice(int(chosen[0]), 1).to_pylist()[0]
            is_within = row["kind"] == "translation" and row["lang_a"] == row["lang_b"]
            kinds.append(PairKind(chosen, "" if is_within else row["kind"]))
    return kinds


def pairs_of_texts(corpus: Corpus) -> pa.Table:
    """Return training pairs without those of words."""
    pairs = corpus.pairs(split="train")
    return pairs.filter(pc.not_equal(pairs["kind"], "word"))


def pair_rows(corpus: Corpus, tokenizer: TextTokenizer, longest: int) -> list[PairRows]:
    """Return training pairs by source, kind and languages; kinds of too few pairs are left out."""
    pairs = corpus.pairs(split="train")
    _, tokens, first, second = tokenised(pairs, tokenizer, longest)
    family = codes(pairs["group"])
    return [
        PairRows(tokens, first[chosen], second[chosen], family[chosen], kind)
        for chosen, kind in pair_kinds(pairs)
    ]


def graded_kinds(graded: pa.Table) -> list[NDArray[np.int64]]:
    """Return the rows of graded pairs by languages, of those with different scores."""
    scores = graded["score"].to_numpy().astype(np.float32)
    kinds = _kinds(graded, ("lang_a", "lang_b"))
    return [chosen for chosen in kinds if len(np.unique(scores[chosen])) > 1]


def graded_rows(corpus: Corpus, tokenizer: TextTokenizer, longest: int) -> list[GradedRows]:
    """Return graded training pairs by languages."""
    graded = corpus.graded(split="train")
    _, tokens, first, second = tokenised(graded, tokenizer, longest)
    scores = graded["score"].to_numpy().astype(np.float32)
    return [
        GradedRows(tokens, first[chosen], second[chosen], scores[chosen])
        for chosen in graded_kinds(graded)
    ]


def query_kinds(corpus: Corpus, recipe: MultiTask, seed: int) -> list[pa.Table]:
    """Return training queries (titles, keywords, pairs of one language) by kind: at most
    ``recipe.queries`` of each, of kinds that have enough groups.
    """
    pairs = pairs_of_texts(corpus)
    pairs = pairs.filter(pc.not_equal(pairs["kind"], "translation"))
    kinds: list[pa.Table] = []
    for own in _kinds(pairs, ("source", "kind", "lang_a", "lang_b")):
        chosen = generator_of(seed, "queries", len(kinds)).permutation(own)[: recipe.queries]
        kind = pairs.take(np.sort(chosen))
        if len(np.unique(codes(kind["group"]))) >= LEAST:
            kinds.append(kind)
    return kinds


def query_rows(
    corpus: Corpus,
    tokenizer: TextTokenizer,
    network: JinaBert,
    recipe: MultiTask,
    seed: int,
    on_progress: OnProgress = no_progress,
) -> list[QueryRows]:
    """Return training queries with hard negatives: passages with the same label that are near by
    the network's own vectors.
    """
    rows: list[QueryRows] = []
    for kind in query_kinds(corpus, recipe, seed):
        _, tokens, first, second = tokenised(kind, tokenizer, recipe.longest)
        family = codes(kind["group"])
        vectors = embed(network, tokens, on_progress)
        negatives = mine(vectors, first, second, family, codes(kind["label"]))
        rows.append(QueryRows(tokens, first, second, negatives, family))
    return rows


def mine(
    vectors: NDArray[np.float32],
    queries: NDArray[np.int64],
    passages: NDArray[np.int64],
    family: NDArray[np.int64],
    label: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return (N, M) passages near each query, M at most MINED: of the same label where it has
    enough, of another family, the nearest SKIPPED (at most a fourth) left out.
    """
    others = len(queries) - int(np.bincount(family).max())  # that every query has
    wanted = min(SKIPPED + MINED, others)
    skipped = min(SKIPPED, wanted // 4)
    mined = np.empty((len(queries), wanted - skipped), np.int64)
    for start in range(0, len(queries), BLOCK):
        near_by = vectors[queries[start : start + BLOCK]] @ vectors[passages].T
        scores = near_by.astype(np.float64)  # exact less FARTHER
        for row, own in enumerate(scores, start):
            own[label != label[row]] -= FARTHER
            own[family == family[row]] = -np.inf
            near = np.argpartition(-own, wanted - 1)[:wanted]
            near = near[np.argsort(-own[near], kind="stable")]
            mined[row] = passages[near[skipped:]]
    return mined


def codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Number the distinct values of a column."""
    combined = column.combine_chunks().dictionary_encode()
    return np.asarray(combined.indices.to_numpy(), np.int64)


def tokenised(
    pairs: pa.Table, tokenizer: TextTokenizer, longest: int
) -> tuple[list[str], Tokens, NDArray[np.int64], NDArray[np.int64]]:
    """Tokenise each distinct text of pairs once; return texts, tokens, the rows of both sides."""
    both = pa.chunked_array([*pairs["text_a"].chunks, *pairs["text_b"].chunks], pa.string())
    encoded = both.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    rows = np.asarray(encoded.indices.to_numpy(), np.int64)
    return texts, tokenizer.encode(texts, longest), rows[: len(pairs)], rows[len(pairs) :]


def _kinds(table: pa.Table, names: tuple[str, ...]) -> list[NDArray[np.int64]]:
    """Return the rows of each distinct combination, in order of their names."""
    numbered = table.select(list(names)).append_column("row", pa.array(np.arange(len(table))))
    grouped = numbered.group_by(list(names)).aggregate([("row", "list")])
    grouped = grouped.sort_by([(name, "ascending") for name in names])
    return [np.asarray(own, np.int64) for own in grouped["row_list"].to_pylist()]
