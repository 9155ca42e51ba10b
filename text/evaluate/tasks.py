"""Runs the tasks of the held-out part of a corpus, such as similarity, bitext and retrieval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from text.corpus.corpus import Corpus
from text.corpus.ding import SOURCE as DING
from text.evaluate import metrics
from text.evaluate.encoders import Candidate
from training.progress import OnProgress, no_progress

BITEXT = 1000  # pairs, one of a page or package
CLUSTERED = 3000  # texts of a clustering task
SEED = 20240226
UNDEFINED = "undefined"  # a figure that is NaN, as a correlation with equal scores is


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: ``task``, languages such as ``en`` or ``en-de``, metric, value, items, pool."""

    candidate: str
    task: str
    languages: str
    metric: str
    value: float
    items: int
    pool: int = 0


def evaluate(
    candidate: Candidate,
    corpus: Corpus,
    tasks: Sequence[str] | None = None,
    on_progress: OnProgress = no_progress,
) -> list[Result]:
    """Return the figures of a candidate on the tasks named, or on all."""
    chosen = TASKS if tasks is None else {name: TASKS[name] for name in tasks}
    results: list[Result] = []
    for done, (name, run) in enumerate(chosen.items()):
        on_progress(f"{candidate.name}: {name}", done, len(chosen))
        results.extend(run(candidate, corpus))
    on_progress(f"{candidate.name}: {name}", len(chosen), len(chosen))
    return results


def similarity(candidate: Candidate, corpus: Corpus) -> Iterator[Result]:
    """Measure Spearman's ρ of similarities and graded scores, per language and across."""
    graded = corpus.graded(split="test")
    for langs, own in _by(graded, "lang_a", "lang_b"):
        scores = candidate.pairwise(own["text_a"].to_pylist(), own["text_b"].to_pylist())
        value = metrics.spearman(scores, own["score"].to_numpy())
        yield Result(candidate.name, "similarity", langs, "spearman", value, len(own))


def bitext(candidate: Candidate, corpus: Corpus) -> Iterator[Result]:
    """Measure accuracy@1 of finding a text's translation among as many, both directions.

    Words and phrases of a dictionary are tasks of their own: most phrases ask for words that no
    other text has.
    """
    pairs = corpus.pairs(split="test", kind="translation")
    phrases = pc.equal(pairs["source"], DING)
    yield from _translated(candidate, "bitext", pairs.filter(pc.invert(phrases)))
    yield from _translated(candidate, "phrases", pairs.filter(phrases))
    yield from _translated(candidate, "words", corpus.pairs(split="test", kind="word"))


def _translated(candidate: Candidate, task: str, pairs: pa.Table) -> Iterator[Result]:
    for langs, own in _by(pairs, "lang_a", "lang_b"):
        chosen = _one_of_each(own, BITEXT)
        first, second = chosen["text_a"].to_pylist(), chosen["text_b"].to_pylist()
        scores = candidate.similarity(first, second)
        count = len(chosen)
        relevant = [np.asarray([row]) for row in range(count)]
        name, back = candidate.name, "-".join(reversed(langs.split("-")))
        for direction, table in ((langs, scores), (back, scores.T)):
            value = metrics.accuracy_at_1(table, relevant)
            yield Result(name, task, direction, "accuracy@1", value, count, count)


def retrieval(candidate: Candidate, corpus: Corpus) -> Iterator[Result]:
    """Measure nDCG@10 and accuracy@1 of the corpus's tasks, within and across languages."""
    tasks = [task for task in corpus.tasks() if not task.startswith("planted")]
    for task, lang, there in product(tasks, corpus.languages, corpus.languages):
        yield from _retrieved(candidate, corpus, task, lang, there)


def lengths(candidate: Candidate, corpus: Corpus) -> Iterator[Result]:
    """Measure nDCG@10 and accuracy@1 of pages planted among others, by tokens of the whole."""
    for task in corpus.tasks():
        if task.startswith("planted"):
            for lang in corpus.languages:
                yield from _retrieved(candidate, corpus, task, lang, lang)


def clustering(candidate: Candidate, corpus: Corpus) -> Iterator[Result]:
    """Measure the v-measure of k-means clusters against labels."""
    labels = corpus.labels(split="test")
    for key, own in _by(labels, "task", "lang"):
        task, lang = key.rsplit("-", 1)
        generator = np.random.default_rng(SEED)
        texts = own.take(np.sort(generator.permutation(len(own))[:CLUSTERED]))
        vectors = candidate.vectors(texts["text"].to_pylist())
        if vectors is None:
            return
        known = texts["label"].to_pylist()
        found = metrics.k_means(vectors, len(set(known)), SEED)
        value = metrics.v_measure(known, found)
        yield Result(candidate.name, task, lang, "v-measure", value, len(texts), len(set(known)))


TASKS: dict[str, Callable[[Candidate, Corpus], Iterator[Result]]] = {
    "similarity": similarity,
    "bitext": bitext,
    "retrieval": retrieval,
    "clustering": clustering,
    "lengths": lengths,
}


def _retrieved(
    candidate: Candidate, corpus: Corpus, task: str, lang: str, there: str
) -> Iterator[Result]:
    found = corpus.retrieval(task, lang, there, split="test")
    if not len(found.queries) or not len(found.documents):
        return
    places = {id_: row for row, id_ in enumerate(found.documents["id"].to_pylist())}
    relevant: list[NDArray[np.int64]] = [
        np.asarray([places[id_] for id_ in ids if id_ in places], np.int64)
        for ids in found.queries["relevant"].to_pylist()
    ]
    scores = candidate.similarity(
        found.queries["text"].to_pylist(), found.documents["text"].to_pylist()
    )
    langs = lang if lang == there else f"{lang}-{there}"
    for metric, value in (
        ("ndcg@10", metrics.ndcg(scores, relevant)),
        ("accuracy@1", metrics.accuracy_at_1(scores, relevant)),
    ):
        yield Result(candidate.name, task, langs, metric, value, len(relevant), len(places))


def _by(table: pa.Table, *names: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each combination: ``en-de``, or ``en`` where both are the same."""
    keys = sorted(
        {tuple(row[name] for name in names) for row in table.select(list(names)).to_pylist()}
    )
    for key in keys:
        own = table
        for name, value in zip(names, key, strict=True):
            own = own.filter(pc.equal(own[name], value))
        yield key[0] if len(set(key)) == 1 else "-".join(key), own


def _one_of_each(pairs: pa.Table, most: int) -> pa.Table:
    """Return at most ``most`` pairs, in an order by their hash, no text or group twice."""
    seen: set[str] = set()
    rows = []
    for row in np.random.default_rng(SEED).permutation(len(pairs)).tolist():
        keys = {pairs[name][row].as_py() for name in ("text_a", "text_b", "group")}
        if seen.isdisjoint(keys):
            seen |= keys
            rows.append(row)
            if len(rows) == most:
                break
    return pairs.take(rows)
