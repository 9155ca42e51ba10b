"""Reads the items of a text corpus; plants a taste that follows from their tags.

A corpus's ``items.parquet`` has items that people tagged, such as packages, with a text in each of
several languages. A tag counts by its rarity, ln(N / items that have it), if several items have it.
The latent vectors are the items' first K principal components over these tags, each scaled to the
same variance, then to norm √K: what most divides the items, which their words say, too.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.parquet.columns import DataFileError
from feature_store.wording import worded
from training.synthetic.click_model import LATENT, Floats

TABLE, ABOUT = "items.parquet", "corpus.json"
COLUMNS = ("id", "lang", "text", "tags", "source", "split")
TRAINING = "train"  # split of items that are warm
AGAIN = "build the corpus again: python -m text corpus build"
Key = tuple[str, str]  # id, source: ids of two sources may be equal
SHARED = 0.002  # least share of the items that have a tag which counts, and two items


@dataclass(frozen=True, slots=True, eq=False)
class TaggedItems:
    """N items with a text in the corpus's first two languages at least; warm ones first."""

    names: list[str]  # (N,) as the corpus has them
    tags: list[list[str]]  # (N,)
    texts: dict[str, list[str | None]]  # language -> (N,), languages in the corpus's order
    cold: NDArray[np.bool_]  # (N,) not of the corpus's training split

    @classmethod
    def read(cls, corpus: Path, least_tags: int = 1) -> Self:
        """Read the items that have so many tags.

        Raises DataFileError, also for two rows of an item that differ in tags, split or the text of
        a language.
        """
        languages, digest = _described(corpus / ABOUT)
        needed = languages[:2]
        found: dict[Key, dict[str, str]] = {}
        about: dict[Key, dict[str, Any]] = {}
        for number, row in enumerate(_rows(corpus / TABLE, digest)):
            row["tags"].sort()
            if len(row["tags"]) < least_tags:
                continue
            key: Key = row["id"], row["source"]
            texts = found.setdefault(key, {})
            known = about.setdefault(key, row) | {
                "text": texts.setdefault(row["lang"], row["text"])
            }
            if other := [name for name in ("text", "tags", "split") if row[name] != known[name]]:
                raise DataFileError(
                    f"{corpus / TABLE}: row {number}: {other[0]}: not that of an earlier row of "
                    f"{row['id']} ({row['source']}); {AGAIN}"
                )
        kept = [key for key, texts in found.items() if texts.keys() >= set(needed)]
        is_cold = {key: about[key]["split"] != TRAINING for key in kept}
        kept.sort(key=lambda key: (is_cold[key], *key))
        cold = np.array([is_cold[key] for key in kept], np.bool_)
        if not cold.any() or cold.all():
            raise DataFileError(
                f"{corpus / TABLE}: {len(kept)} items with texts in {' and '.join(needed)} and at "
                f"least {least_tags} tags, {int(cold.sum())} of them held out; some of both are "
                "needed"
            )
        return cls(
            [name for name, _ in kept],
            [about[key]["tags"] for key in kept],
            {lang: [found[key].get(lang) for key in kept] for lang in languages},
            cold,
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """Digest of names, tags, texts and of what is cold."""
        own = [self.names, self.tags, self.texts, self.cold.tolist()]
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:16]

    def latent(self, rng: np.random.Generator) -> Floats:
        """Compute the latent vectors (N, K), turned at random. Raises DataFileError."""
        counts = Counter(tag for own in self.tags for tag in own)
        least = max(2, SHARED * len(self))
        known = {tag: n for n, tag in enumerate(sorted(t for t in counts if counts[t] >= least))}
        has = np.zeros((len(self), len(known)))
        for row, own in enumerate(self.tags):
            has[row, [known[tag] for tag in own if tag in known]] = 1
        weighted = has * np.log(len(self) / np.maximum(has.sum(0), 1))
        weighted -= weighted.mean(0)
        variances, axes = np.linalg.eigh(weighted.T @ weighted / len(self))
        if (variances > 1e-9).sum() < LATENT:
            raise DataFileError(f"{len(known)} tags that several items have: too few for a taste")
        first = weighted @ axes[:, -LATENT:] / np.sqrt(variances[-LATENT:])
        turn = np.linalg.qr(rng.standard_normal((LATENT, LATENT)))[0]
        latent = first @ turn
        norms = np.linalg.norm(latent, axis=1, keepdims=True)
        latent *= np.sqrt(LATENT) / np.maximum(norms, 1e-9)
        return latent.astype(np.float32)  # type: ignore[no-any-return]


def _described(path: Path) -> tuple[list[str], str | None]:
    """Read the languages, and the SHA-256 of the table where the corpus has it."""
    try:
        about = json.loads(path.read_bytes())
        found, digest = about["languages"], about.get("tables", {}).get("items", {}).get("sha256")
    except FileNotFoundError:
        raise DataFileError(f"{path}: no such file: no corpus; {AGAIN}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFileError(f"{path}: not readable: {worded(error)}; {AGAIN}") from error
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(x, str) for x in found):
        raise DataFileError(f"{path}: languages: at least two are needed; {AGAIN}")
    return found, digest


def _rows(path: Path, digest: str | None) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise DataFileError(f"{path}: is not the one that {ABOUT} describes; {AGAIN}")
        if missing := set(COLUMNS) - set(pq.read_schema(path).names):
            raise DataFileError(f"{path}: no column {sorted(missing)[0]}; {AGAIN}")
        table = pq.read_table(path, columns=list(COLUMNS))
        for name, column in zip(table.column_names, table.columns, strict=True):
            needed = pa.list_(pa.string()) if name == "tags" else pa.string()
            if column.type != needed or column.null_count:
                held = "nulls" if column.type == needed else f"{column.type}, not {needed}"
                raise DataFileError(f"{path}: column {name}: holds {held}; {AGAIN}")
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    except FileNotFoundError:
        raise DataFileError(f"{path}: no such file; {AGAIN}") from None
    except (OSError, pa.ArrowException) as error:
        raise DataFileError(f"{path}: not readable: {worded(error)}; {AGAIN}") from error
