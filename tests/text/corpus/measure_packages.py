"""Measures what the corpus's numbers for package descriptions rest on.

``python -m tests.text.corpus.measure_packages ARCHIVES [--json]``, with the folder of archives that
``text corpus build`` fills: near-duplicates that MinHash finds, against exact Jaccard similarities
of word bigrams, and scores of packages paired at random. Exit code 1 if the recall is below 0.85.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text.corpus import packages
from text.corpus.archives import Archives
from text.corpus.duplicates import judge, signatures, words
from text.corpus.entry import Entry
from text.corpus.graded import LEAST_TAGS, Tagged, idf, similarities
from text.corpus.split import hash_of

SIMILAR, DISTANT = 0.8, 0.7
LEAST_RECALL = 0.85
MOST_USES = 500  # a bigram of more texts names no candidates, as in "This package provides"


def near_duplicates(texts: list[list[str]]) -> dict[str, Any]:
    """Compare the texts that MinHash finds near to an earlier one with those that are."""
    keys = np.asarray([hash_of(" ".join(text)) for text in texts], np.uint64)
    started = time.process_time()
    same = np.zeros(len(texts))
    verdicts, _ = judge(
        keys,
        same.astype(np.uint64),
        signatures(texts),
        same.astype(np.uint8),
        same.astype(np.uint8),
        np.ones(len(texts), bool),
    )
    minhash_s = time.process_time() - started
    found = verdicts > 0
    started = time.process_time()
    nearest = nearest_earlier(texts)
    near = nearest >= SIMILAR
    return {
        "texts": len(texts),
        "equal": len(keys) - len(np.unique(keys)),
        "found": int(found.sum()),
        "near": int(near.sum()),
        "near_and_found": int((near & found).sum()),
        "found_below_0.7": int((found & (nearest < DISTANT)).sum()),
        "minhash_seconds": round(minhash_s, 1),
        "exact_seconds": round(time.process_time() - started, 1),
    }


def nearest_earlier(texts: list[list[str]]) -> NDArray[np.float64]:
    """Return the largest Jaccard similarity of word bigrams to an earlier text."""
    bigrams = [set(zip(text, [*text[1:], ""], strict=True)) for text in texts]
    uses = Counter(bigram for own in bigrams for bigram in own)
    holders: dict[tuple[str, str], list[int]] = {}
    nearest = np.zeros(len(texts))
    for row, own in enumerate(bigrams):
        shared: Counter[int] = Counter()
        for bigram in own:
            if uses[bigram] <= MOST_USES:
                shared.update(holders.setdefault(bigram, []))
                holders[bigram].append(row)
        for other, _ in shared.most_common(20):
            common = len(own & bigrams[other])
            nearest[row] = max(nearest[row], common / (len(own) + len(bigrams[other]) - common))
    return nearest


def random_scores(entries: list[Entry], most: int) -> dict[str, Any]:
    """Return the shares of low and high scores among all pairs of packages with tags."""
    tagged = [entry for entry in entries if len(entry.meta["tags"]) >= LEAST_TAGS]
    tagged.sort(key=lambda entry: hash_of(f"graded {entry.id}"))
    chosen = [Tagged(e.id, e.group, "train", tuple(e.meta["tags"]), {}) for e in tagged[:most]]
    scores = similarities([each.tags for each in chosen], idf(chosen))
    families = np.unique([each.group for each in chosen], return_inverse=True)[1]
    pairs = scores[np.triu(families[:, None] != families, 1)]
    return {
        "packages": len(chosen),
        "scores_below_0.1": round(float((pairs < 0.1).mean()), 4),
        "scores_above_0.5": round(float((pairs > 0.5).mean()), 4),
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("archives", type=Path)
    options.add_argument("--texts", type=int, default=12_000, help="Descriptions compared.")
    options.add_argument("--packages", type=int, default=2_000, help="Packages paired.")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    entries = list(packages.read(Archives(given.archives), ["en"]))
    entries.sort(key=lambda entry: hash_of(f"measured {entry.id}"))
    bodies = [row.text for entry in entries for row in entry.rows if row.part == "body"]
    texts = [found for body in bodies if len(found := words(body)) > 3][: given.texts]
    report = near_duplicates(texts) | random_scores(entries, given.packages)
    print(json.dumps(report) if given.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    return 0 if report["near_and_found"] >= LEAST_RECALL * report["near"] else 1


if __name__ == "__main__":
    sys.exit(main())
