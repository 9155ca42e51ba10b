"""Benchmarks training steps with few and with many users: batch, gradients, optimiser.

The rows are random, each of a random user; the schema is that of synthetic data with taste, in the
sizes of the preset, and the recipe decides which tables are updated by touched rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from feature_store.schema import FeatureSchema
from training.bench.steps import medians, torch_threads
from training.data.catalogue import Catalogue
from training.data.rows import Rows
from training.data.users import ID, RowUsers
from training.loop.data_parallel import ProcessGroup
from training.loop.fit import gradients
from training.loop.optimiser import Optimiser
from training.progress import OnProgress, no_progress
from training.qin import QIN
from training.recipe import Recipe
from training.synthetic.sizes import SIZES, USER_INDEX

STEPS = 64  # batches of rows, taken in turn


def run(
    users: Sequence[int],
    recipe: Recipe,
    *,
    batch: int = 2048,
    repeats: int = 21,
    threads: int | None = None,
    published: bool = False,
    on_progress: OnProgress = no_progress,
) -> dict[str, Any]:
    """Measure the median step in milliseconds for each number of users, in turns.

    ``published``: in the challenge's sizes, embeddings of 128 numbers.
    """
    with torch_threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        steps = {count: _Steps(_schema(count, published), recipe, batch) for count in users}
        median = medians({str(n): step.__call__ for n, step in steps.items()}, repeats, on_progress)
        few, many = (str(bound) for bound in (min(users), max(users)))
        return {
            "step_ms": median,
            "ratio": median[many] / median[few],
            "batch": batch,
            "touched_rows_above": recipe.touched_rows_above,
            "parameters": {str(count): step.parameters for count, step in steps.items()},
            "threads": torch.get_num_threads(),
            "repeats": repeats,
        }


class _Steps:
    """Steps of training over random rows, one at each call."""

    def __init__(self, schema: FeatureSchema, recipe: Recipe, batch: int) -> None:
        self.rows, self.batch, self.taken = _random_rows(schema, STEPS * batch), batch, 0
        self.network = QIN(schema, recipe.sizes, recipe.initial).train()
        self.optimiser = Optimiser(self.network, recipe)
        self.group = ProcessGroup(rank=0, count=1)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def __call__(self) -> None:
        first = self.taken % STEPS * self.batch
        self.taken += 1
        rows = self.rows.batch(np.arange(first, first + self.batch))
        gradients(self.network, rows, self.batch, self.group)
        self.optimiser.step()


def _schema(users: int, published: bool) -> FeatureSchema:
    sizes = replace(SIZES["taste"], train=users, rows_per_user=1)
    if published:
        of = SIZES["challenge"]
        sizes = replace(sizes, items=of.items, tags=of.tags, embedding=of.embedding)
        width = of.item_width
        sizes = replace(sizes, history=of.history, item_width=width, context_width=width)
        sizes = replace(sizes, user_width=width)
    return sizes.schema


def _random_rows(schema: FeatureSchema, count: int) -> Rows:
    random = np.random.default_rng(0)
    vocabulary = {f.name: f.vocabulary for f in (*schema.item, *schema.user) if f.kind != "dense"}
    items = np.zeros(vocabulary["item_id"], schema.item_dtype)
    items["item_id"] = np.arange(len(items))
    tags, content = items["item_tags"], items["item_emb_d128"]
    tags[1:] = random.integers(0, vocabulary["item_tags"], tags[1:].shape)
    content[1:] = random.standard_normal(content[1:].shape)
    distinct = np.zeros(vocabulary[USER_INDEX], [(ID, "<i8"), *schema.user_dtype.descr])
    distinct[ID] = distinct[USER_INDEX] = np.arange(len(distinct))
    distinct["country"][1:] = random.integers(1, vocabulary["country"], len(distinct) - 1)
    user = random.integers(1, len(distinct), count)
    users, _ = RowUsers.of(schema, distinct, user.astype(np.int32), [])
    request = np.zeros(count, [("device", "<i4"), ("hour", "<f4")])
    request["hour"] = random.integers(0, 24, count)
    shape = (count, schema.history_length)
    return Rows(
        Catalogue(schema, np.arange(len(items)), items),
        user=user,
        history=random.integers(1, len(items), shape).astype(np.int32),
        target=random.integers(1, len(items), count).astype(np.int32),
        context=random.integers(1, 11, (count, len(schema.context))).astype(np.int32),
        label=(random.random(count) < 0.25).astype(np.float32),
        request=request,
        users=users,
    )
