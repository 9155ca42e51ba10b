"""Writes synthetic data in the challenge's format, from a click model of known probability.

``train``, ``valid``, ``test``, ``item_info`` and ``item_feature`` parquet with the challenge's
columns and types (without the unused BERT and CLIP embeddings of ``item_feature``),
``schema.yaml``, and ``truth.json`` with the best AUC that any model can reach.
The same seed and sizes give the same rows.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.challenge_files import RowFile, write_items
from training.click_model import ClickModel, Indices, Users, plant_items
from training.metrics import auc
from training.progress import OnProgress, no_progress
from training.synthesis_sizes import SIZES, SynthesisSizes

__all__ = ["SIZES", "SynthesisError", "SynthesisSizes", "Truth", "synthesize"]

ROWS_PER_USER = 4
BLOCK_USERS = 8192  # drawn and written together: one row group
RETURNING = 0.5  # share of users of valid and test that are also in train
LATER_CLICKS = 4  # of a returning user since train
SPLITS = ("train", "valid", "test")
ITEMS, CLICKS, ROWS = range(3)  # streams of random numbers


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


def synthesize(
    out: Path,
    sizes: SynthesisSizes | None = None,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> Truth:
    """Write the files into ``out``, replacing existing ones; return the ground truth."""
    sizes = sizes or SIZES["demo"]
    schema = sizes.schema
    out.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".synthesis-", dir=out))
    try:
        items = plant_items(
            np.random.default_rng([seed, ITEMS]),
            sizes.items,
            sizes.tags,
            sizes.tag_slots,
            sizes.embedding,
        )
        clicks = ClickModel(items, sizes.history, np.random.default_rng([seed, CLICKS]))
        write_items(partial, items)
        made = {
            split: _write(
                partial / f"{split}.parquet", _Split(clicks, sizes, split, seed), on_progress
            )
            for split in SPLITS
        }
        truth = Truth(
            best_auc_valid=_best_auc("valid", *made["valid"]),
            best_auc_test=_best_auc("test", *made["test"]),
            positives_train=float(made["train"][1].mean()),
            seed=seed,
            sizes=sizes,
        )
        (partial / "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
        (partial / "truth.json").write_text(json.dumps(asdict(truth), indent=2) + "\n")
        (out / "truth.json").unlink(missing_ok=True)  # never with rows of another run
        for name in sorted(os.listdir(partial), key=lambda name: name == "truth.json"):
            os.replace(partial / name, out / name)
        return truth
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Block:
    """Some users and their candidates."""

    number: Indices  # (U,) of the user, from 0
    history: Indices  # (U, L)
    target: Indices  # (U, rows per user)
    probability: NDArray[np.float64]  # (U, rows per user)
    label: NDArray[np.bool_]  # (U, rows per user)


@dataclass(frozen=True, slots=True)
class _Split:
    """One of train, valid and test; drawing a block is deterministic."""

    clicks: ClickModel
    sizes: SynthesisSizes
    name: str
    seed: int

    @property
    def rows(self) -> int:
        return int(getattr(self.sizes, self.name))

    @property
    def users(self) -> int:
        return -(-self.rows // ROWS_PER_USER)

    def blocks(self) -> Iterator[_Block]:
        for block in range(-(-self.users // BLOCK_USERS)):
            rng, users = self._new_users(block)
            number = block * BLOCK_USERS + np.arange(len(users.history))
            if self.name != "train":
                number += self._first_number
                self._return(rng, block, users, number)
            cold = self.name != "train"
            target = self.clicks.candidates(rng, len(number), ROWS_PER_USER, cold=cold)
            probability = self.clicks.probability(users.history, target)
            label = rng.random(probability.shape) < probability
            yield _Block(number, users.history, target, probability, label)

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


def _write(
    path: Path, split: _Split, on_progress: OnProgress
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Write a split; return probability and label of every row, (n,) each."""
    probability, label = np.empty(split.rows), np.empty(split.rows, bool)
    done = 0
    with closing(RowFile(path, split.clicks.items, labelled=split.name != "test")) as file:
        for block in split.blocks():
            part = slice(done, min(done + block.target.size, split.rows))
            count = part.stop - part.start  # the last user may have fewer rows than the others
            probability[part] = block.probability.ravel()[:count]
            label[part] = block.label.ravel()[:count]
            user = np.repeat(_user_id(block.number, split.seed), ROWS_PER_USER)[:count]
            history = np.repeat(block.history, ROWS_PER_USER, axis=0)[:count]
            file.write(user, history, block.target.ravel()[:count], label[part])
            done = part.stop
            on_progress(f"write {path.name}", done, split.rows)
    return probability, label


def _best_auc(split: str, probability: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    if label.all() or not label.any():
        raise SynthesisError(f"{split}: {len(label)} rows have but one label; make more of them")
    return auc(probability, label)


def _user_id(number: Indices, seed: int) -> Indices:
    """Map to sparse 63-bit ids: a bijection of 0 … 2⁶³−1 (multiply and xor-shift, as splitmix)."""
    mask = np.uint64(2**63 - 1)
    mixed = number.astype(np.uint64) + np.uint64(seed * 0x1E3779B97F4A7C15 & int(mask))
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB), (31, 1)):
        mixed &= mask
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed & mask).astype(np.int64)
