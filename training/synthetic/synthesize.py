"""Writes synthetic data in the challenge's format, from a click model of known probability.

``train``, ``valid``, ``test``, ``item_info`` and ``item_feature`` parquet with the challenge's
columns and types (without the unused BERT and CLIP embeddings of ``item_feature``),
``schema.yaml``, and ``truth.json`` with the best AUC that any model can reach. With ``taste``,
also ``user_info``, columns of requests, and ``plain.yaml``, the schema without their features.
With a catalogue, the items are those of a text corpus: ``item_text`` has their texts,
``item_planted`` the content embeddings that would be known if the taste were, and ``cold`` has
labelled rows of cold items alone. What makes content of the texts writes ``item_info``.
The same seed and sizes give the same rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.temporary_folders import temporary_folder
from training.evaluation.metrics import auc
from training.progress import OnProgress, no_progress
from training.synthetic.challenge_files import RowFile, write_catalogue, write_items, write_users
from training.synthetic.click_model import (
    ClickModel,
    Indices,
    Items,
    Users,
    items_of_tastes,
    plant_items,
    sigmoid,
)
from training.synthetic.sizes import SIZES, SynthesisSizes
from training.synthetic.tagged_items import TaggedItems
from training.synthetic.taste import Requests, Taste

__all__ = ["SIZES", "SynthesisError", "SynthesisSizes", "Truth", "synthesize"]

ROWS_PER_USER = 4  # of valid and test
BLOCK_USERS = 8192  # drawn and written together: one row group
RETURNING = 0.5  # share of users of valid and test that are also in train
LATER_CLICKS = 4  # of a returning user since train
ALONE = 0.5  # share of a catalogue's cold items that have a text in the second language alone
COLD = "cold"  # a split of cold items alone
SPLITS = ("train", "valid", "test", COLD)
COLD_ROWS = {"valid": 0.05, "test": 0.05, COLD: 1.0}  # share of the rows that show cold items
ITEMS, CLICKS, ROWS, TASTE, REQUESTS = range(5)  # streams of random numbers


class SynthesisError(ValueError):
    """Sizes for which the best AUC is undefined."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of synthetic data, written as ``truth.json``."""

    best_auc_valid: float  # of the generating probability itself
    best_auc_test: float
    positives_train: float  # share
    seed: int
    sizes: SynthesisSizes
    best_auc_valid_without_features: float | None = None  # of user and request
    best_auc_cold: float | None = None  # with a catalogue: of cold.parquet
    cold_items: int | None = None
    cold_items_of_one_language: int | None = None  # the corpus's second


def synthesize(
    out: Path,
    sizes: SynthesisSizes | None = None,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
    catalogue: TaggedItems | None = None,
) -> Truth:
    """Write the files into ``out``, replacing existing ones; return the ground truth.

    With ``catalogue``, sizes are of ``catalogue``, and the number of items is its own.
    """
    sizes = sizes or SIZES["catalogue" if catalogue else "demo"]
    if catalogue:
        sizes = replace(sizes, items=len(catalogue), catalogue=True)
    schema = sizes.schema
    out.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out, "synthesis") as partial:
        rng = np.random.default_rng([seed, ITEMS])
        items = _items(rng, sizes, catalogue)
        clicks = ClickModel(items, sizes.history, np.random.default_rng([seed, CLICKS]))
        alone = None
        if catalogue:
            alone = catalogue.cold & (rng.random(len(catalogue)) < ALONE)
            write_catalogue(partial, items, catalogue, alone)
        else:
            write_items(partial, items)
        taste = _taste(clicks, sizes, seed) if sizes.taste else None
        splits = [_Split(clicks, sizes, split, seed, taste) for split in SPLITS]
        splits = [split for split in splits if split.rows]
        made = {
            split.name: _write(partial / f"{split.name}.parquet", split, on_progress)
            for split in splits
        }
        without = None
        if taste:
            number = np.arange(len(taste.country))
            index = np.where(number < taste.known, number + 1, 0)
            write_users(partial, _user_id(number, seed), index, taste.country)
            plain = sizes.plain_schema.to_yaml()
            (partial / "plain.yaml").write_text(plain, encoding="utf-8")
            rows = made["valid"]
            best = taste.without_features(rows.logit, items.latent[rows.target])
            without = auc(best, rows.label)
        truth = Truth(
            best_auc_valid=made["valid"].best_auc("valid"),
            best_auc_test=made["test"].best_auc("test"),
            positives_train=float(made["train"].label.mean()),
            seed=seed,
            sizes=sizes,
            best_auc_valid_without_features=without,
            best_auc_cold=made[COLD].best_auc(COLD) if COLD in made else None,
            cold_items=int(items.cold.sum()) if catalogue else None,
            cold_items_of_one_language=None if alone is None else int(alone.sum()),
        )
        (partial / "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
        (partial / "truth.json").write_text(json.dumps(asdict(truth), indent=2) + "\n")
        (out / "truth.json").unlink(missing_ok=True)  # never with rows of another run
        for name in sorted(os.listdir(partial), key=lambda name: name == "truth.json"):
            os.replace(partial / name, out / name)
        return truth


def _items(rng: np.random.Generator, sizes: SynthesisSizes, catalogue: TaggedItems | None) -> Items:
    if catalogue:
        return items_of_tastes(rng, catalogue.latent(rng), catalogue.cold, sizes.embedding)
    return plant_items(rng, sizes.items, sizes.tags, sizes.tag_slots, sizes.embedding)


@dataclass(frozen=True, slots=True)
class _Block:
    """Some users and their candidates."""

    number: Indices  # (U,) of the user, from 0
    history: Indices  # (U, L)
    target: Indices  # (U, rows per user)
    logit: NDArray[np.float64]  # (U, rows per user) of the click model
    best: NDArray[np.float64]  # (U, rows per user) the best prediction
    label: NDArray[np.bool_]  # (U, rows per user)
    requests: Requests | None


@dataclass(frozen=True, slots=True)
class _Written:
    """What is known of the rows of a file, (n,) each."""

    target: Indices
    logit: NDArray[np.float64]
    best: NDArray[np.float64]
    label: NDArray[np.bool_]

    def best_auc(self, split: str) -> float:
        if self.label.all() or not self.label.any():
            rows = len(self.label)
            raise SynthesisError(f"{split}: {rows} rows have but one label; make more of them")
        return auc(self.best, self.label)


@dataclass(frozen=True, slots=True)
class _Split:
    """One of train, valid and test; drawing a block is deterministic."""

    clicks: ClickModel
    sizes: SynthesisSizes
    name: str
    seed: int
    taste: Taste | None = None

    @property
    def rows_per_user(self) -> int:
        return self.sizes.rows_per_user if self.name == "train" else ROWS_PER_USER

    @property
    def rows(self) -> int:
        return int(getattr(self.sizes, self.name))

    @property
    def users(self) -> int:
        return -(-self.rows // self.rows_per_user)

    def blocks(self) -> Iterator[_Block]:
        for block in range(-(-self.users // BLOCK_USERS)):
            rng, users = self._new_users(block)
            number = block * BLOCK_USERS + np.arange(len(users.history))
            if self.name != "train":
                number += self._first_number
                self._return(rng, block, users, number)
            cold = COLD_ROWS.get(self.name, 0.0)
            target = self.clicks.candidates(rng, len(number), self.rows_per_user, cold)
            logit = self.clicks.logit(users.history, target)
            requests, probability, best = None, sigmoid(logit), sigmoid(logit)
            if self.taste:
                stream = [self.seed, REQUESTS, SPLITS.index(self.name), block]
                requests = Requests.draw(np.random.default_rng(stream), target.shape)
                latent = self.clicks.items.latent[target]
                tasted = self.taste.logit(logit, number, latent, requests)
                probability, best = sigmoid(tasted), self.taste.best(tasted, number)
            label = rng.random(target.shape) < probability
            yield _Block(number, users.history, target, logit, best, label, requests)

    def _new_users(self, block: int) -> tuple[np.random.Generator, Users]:
        rng = np.random.default_rng([self.seed, ROWS, SPLITS.index(self.name), block])
        count = min(BLOCK_USERS, self.users - block * BLOCK_USERS)
        return rng, self.clicks.new_users(rng, count)

    def _return(self, rng: np.random.Generator, block: int, users: Users, number: Indices) -> None:
        """Replace some new users by users of train, some clicks later."""
        train = _Split(self.clicks, self.sizes, "train", self.seed)
        origin = block % -(-train.users // BLOCK_USERS)
        _, before = train._new_users(origin)
        count = min(int(RETURNING * len(number)), len(before.history))
        before = before[:count]
        self.clicks.click(rng, before, LATER_CLICKS)
        users.history[:count] = before.history
        number[:count] = origin * BLOCK_USERS + np.arange(count)

    @property
    def _first_number(self) -> int:
        """Number of users in the splits before."""
        before = SPLITS[: SPLITS.index(self.name)]
        return sum(_Split(self.clicks, self.sizes, split, self.seed).users for split in before)


def _taste(clicks: ClickModel, sizes: SynthesisSizes, seed: int) -> Taste:
    """Draw the taste of all users; one click in four, as without it."""
    rng = np.random.default_rng([seed, TASTE])
    users = sum(_Split(clicks, sizes, split, seed).users for split in SPLITS)
    taste = Taste(rng, users, sizes.train_users)
    sample = clicks.new_users(rng, 8192)
    target = clicks.candidates(rng, 8192, 8, 0.0)
    requests = Requests.draw(rng, target.shape)
    logit = clicks.logit(sample.history, target)
    number = rng.integers(0, users, 8192)
    taste.calibrate(taste.logit(logit, number, clicks.items.latent[target], requests))
    return taste


def _write(path: Path, split: _Split, on_progress: OnProgress) -> _Written:
    """Write a split; return what is known of its rows."""
    rows = split.rows
    logit, best, label = np.empty(rows), np.empty(rows), np.empty(rows, bool)
    written = _Written(np.empty(rows, np.int64), logit, best, label)
    done, each = 0, split.rows_per_user
    labelled, requests = split.name != "test", split.taste is not None
    with closing(RowFile(path, split.clicks.items, labelled=labelled, requests=requests)) as file:
        for block in split.blocks():
            part = slice(done, min(done + block.target.size, rows))
            count = part.stop - part.start  # the last user may have fewer rows than the others
            for name in ("target", "logit", "best", "label"):
                getattr(written, name)[part] = getattr(block, name).ravel()[:count]
            user = np.repeat(_user_id(block.number, split.seed), each)[:count]
            history = np.repeat(block.history, each, axis=0)[:count]
            asked = block.requests.columns(count) if block.requests else ()
            file.write(user, history, written.target[part], label[part], asked)
            done = part.stop
            on_progress(f"write {path.name}", done, rows)
    return written


def _user_id(number: Indices, seed: int) -> Indices:
    """Map to sparse 63-bit ids: a bijection of 0 … 2⁶³−1 (multiply and xor-shift, as splitmix)."""
    mask = np.uint64(2**63 - 1)
    mixed = number.astype(np.uint64) + np.uint64(seed * 0x1E3779B97F4A7C15 & int(mask))
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB), (31, 1)):
        mixed &= mask
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed & mask).astype(np.int64)
