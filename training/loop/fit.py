"""Trains a network by a recipe: epochs, early stopping, resuming after a kill.

Each epoch draws its order and dropout from (seed, epoch) alone, so that a resumed run ends with the
same weights as an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from feature_store.schema import Categorical, Numeric
from training import checkpoint
from training.data.dataset import Rows
from training.evaluation.metrics import auc, logloss
from training.evaluation.plots import learning_curve
from training.loop.data_parallel import ProcessGroup
from training.loop.epoch_log import JSON_LINES, JsonLines, OnEpoch, no_log
from training.loop.optimiser import Optimiser
from training.loop.run import FitError, Run
from training.loop.run_lock import alone
from training.progress import OnProgress, no_progress
from training.qin import QIN, Batch, Standardised
from training.recipe import Recipe

logger = logging.getLogger("training")


class DivergedError(FitError):
    """Training diverged before its first epoch was complete."""


def fit(
    train: Rows,
    valid: Rows,
    recipe: Recipe,
    out: Path,
    group: ProcessGroup,
    on_progress: OnProgress = no_progress,
    on_epoch: OnEpoch = no_log,
) -> dict[str, Any]:
    """Train, save the epoch with the best validation AUC as the checkpoint ``out``, return metrics.

    Resumes a killed run: the state of the last complete epoch is kept next to ``out`` until the
    run is complete and ``out`` is written. So are the epochs' metrics, ``OUT.metrics.jsonl``. A run
    that another process is at is refused.
    A warning names a checkpoint of another recipe, schema or data that ``out`` has; other files
    there are refused, since the checkpoint replaces the folder.

    A run that diverges ends with its best epoch before. Raises DivergedError where there is none.
    """
    checkpoint.check_out(out)
    _check_batches(len(train), recipe)
    out.parent.mkdir(parents=True, exist_ok=True)
    busy = FitError(f"{out}: another process is at this run; end it or wait for it")
    with alone(out.with_name(f".{out.name}.lock"), busy) if group.first else nullcontext():
        return _fit(train, valid, recipe, out, group, on_progress, on_epoch)


def _fit(
    train: Rows,
    valid: Rows,
    recipe: Recipe,
    out: Path,
    group: ProcessGroup,
    on_progress: OnProgress,
    on_epoch: OnEpoch,
) -> dict[str, Any]:
    data = data_digests(train, valid)
    there = checkpoint.replaced(out, recipe, train.schema, data)
    if there and group.first:
        logger.warning("warning: %s: training replaces %s", out, there)
    torch.manual_seed(recipe.seed)
    network = QIN(train.schema, recipe.sizes, recipe.initial)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = recipe.norm_momentum
    fit_to_rows(network, train)
    group.join(network)
    optimiser = Optimiser(network, recipe)
    if not 0 < valid.label.sum() < len(valid):
        raise FitError("valid.parquet has labels of one kind only: AUC is undefined")
    state = out.with_name(f".{out.name}.resume.pt")
    run = Run(network, optimiser, recipe, data, state, group)
    run.resume()
    if group.first:
        lines = JsonLines(out.with_name(f"{out.name}.{JSON_LINES}"), run.history)
    while not run.over:
        started = time.monotonic()
        run.epoch += 1
        loss = _train_epoch(run, train, group, on_progress)
        scores = np.empty(0, np.float32)
        if group.first:
            scores = predict(network, valid, on_progress=on_progress)
        trained = math.isfinite(loss) and checkpoint.is_finite(network)
        measured = group.first and trained and np.isfinite(scores).all()
        value = group.agree(auc(scores, valid.label) if measured else math.nan)
        if math.isnan(value):
            odd = (
                "loss or weights" if not trained else "scores of the validation rows, not the loss,"
            )
            told = f"training diverged in epoch {run.epoch}: {odd} are NaN or infinite"
            if not run.best_epoch:
                if group.first:
                    lines.remove()
                values = "" if not trained else "look for values far from those of training, or "
                raise DivergedError(f"{told}; {values}give a lower learning_rate or gradient_clip")
            if group.first:
                logger.warning("warning: %s; epoch %d is kept", told, run.best_epoch)
            break
        run.judge(value)
        if group.first:
            run.history.append(
                {
                    "epoch": run.epoch,
                    "train_loss": loss,
                    "valid_auc": value,
                    "valid_logloss": logloss(scores, valid.label),
                    "learning_rate": run.learning_rate,
                    "seconds": time.monotonic() - started,
                }
            )
            run.save()
            lines.append(run.history[-1])
            on_epoch(run.history)
    if group.first:
        network.load_state_dict(run.best_weights)
        curve = learning_curve(run.history, run.best_epoch)
        files = {"learning_curve.png": curve, JSON_LINES: lines.content}
        if train.users and train.users.assigned:
            files[checkpoint.USER_INDEX] = train.users.assigned.parquet()
        checkpoint.save(out, network, run.metrics() | {checkpoint.DATA: data}, files)
        lines.remove()
        run.remove_state()
    return run.metrics()


def data_digests(train: Rows, valid: Rows) -> str:
    """Digests of all that a run reads: labels, users and requests, then histories and items."""
    inputs = f"{train.input_digest} {valid.input_digest} {train.items.features_digest}"
    return f"{train.digest} {valid.digest} {inputs}"


def fit_to_rows(network: QIN, train: Rows) -> None:
    """Set what the training rows alone determine, before training.

    Mean and deviation of each numeric feature, over the rows that have it; rows of the users'
    identity without training rows are zero, as is that of the unknown user.
    """
    for feature in network.schema.request:
        if isinstance(feature, Numeric) and train.request is not None:
            values = train.request[feature.name].astype(np.float64)
            values = values[~np.isnan(values)]
            standardised = network.request_vector.embedding[feature.name]
            assert isinstance(standardised, Standardised)
            standardised.mean.fill_(values.mean() if len(values) else 0.0)
            standardised.deviation.fill_((values.std() if len(values) else 0.0) or 1.0)
    for user in network.schema.user:
        if user.name == network.schema.user_identity and train.users is not None:
            assert isinstance(user, Categorical)
            table = network.user_vector.embedding[user.name]
            assert isinstance(table, nn.Embedding)
            with torch.no_grad():
                table.weight[train.users.rows_per_index(user) == 0] = 0.0


def predict(
    network: QIN, rows: Rows, batch_size: int = 4096, on_progress: OnProgress = no_progress
) -> NDArray[np.float32]:
    """Predict (N,) click probabilities, in the order of the rows."""
    network.eval()
    scores = np.empty(len(rows), np.float32)
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            chosen = np.arange(start, min(start + batch_size, len(rows)))
            scores[chosen] = network(rows.batch(chosen)).sigmoid().numpy()
            on_progress("evaluate", int(chosen[-1]) + 1, len(rows))
    return scores


def _train_epoch(run: Run, train: Rows, group: ProcessGroup, on_progress: OnProgress) -> float:
    """Train on all rows once; return the mean loss, of all processes."""
    run.network.train()
    order = np.random.default_rng([run.recipe.seed, run.epoch]).permutation(len(train))
    seeds = np.random.SeedSequence([run.recipe.seed, run.epoch, group.rank])
    torch.manual_seed(int(seeds.generate_state(1)[0]))
    what = f"epoch {run.epoch} of at most {run.recipe.epochs}"
    total, seen = 0.0, 0
    for rows in _batches(order, run.recipe.batch_size, run.recipe.smallest_batch):
        mine = group.share(rows)
        total += _step(run, train, mine, len(rows), group)
        seen += len(mine)
        on_progress(what, min(seen * group.count, len(train)), len(train))
    return group.sum(total) / len(train)


def _batches(order: NDArray[np.int64], size: int, smallest: int) -> Iterator[NDArray[np.int64]]:
    """Split rows into batches. A last batch too small for batch norm joins the one before."""
    edges = list(range(0, len(order), size))
    if len(edges) > 1 and len(order) - edges[-1] < min(smallest, size):
        edges.pop()
    for start, end in zip(edges, [*edges[1:], len(order)], strict=True):
        yield order[start:end]


def _check_batches(rows: int, recipe: Recipe) -> None:
    """Raise FitError where a batch would be of one row, which has no variance to normalise by."""
    if rows == 1:
        raise FitError("train.parquet has one row: batch norm requires two in a batch")
    if recipe.batch_size == 1:
        raise FitError("batch_size is 1: batch norm requires two rows; --set batch_size=2")
    if rows % recipe.batch_size == 1 and recipe.smallest_batch == 1:
        raise FitError(
            f"the last batch of {rows:,} rows would be of one, and batch norm requires two: "
            "--set smallest_batch=2 joins it to the one before"
        )


def _step(
    run: Run, train: Rows, mine: NDArray[np.int64], batch_rows: int, group: ProcessGroup
) -> float:
    """Take one step of the optimiser; return the summed loss of this process's rows."""
    loss = gradients(run.network, train.batch(mine), batch_rows, group)
    run.optimiser.step()
    return loss


def gradients(network: QIN, mine: Batch, batch_rows: int, group: ProcessGroup) -> float:
    """Set gradients of the mean loss over the batch of all processes.

    Returns the summed loss of ``mine``, this process's part of the ``batch_rows``.
    """
    loss = F.binary_cross_entropy_with_logits(network(mine), mine.label, reduction="sum")
    network.zero_grad()
    (loss / batch_rows).backward()  # type: ignore[no-untyped-call]
    group.sum_gradients(network)
    return float(loss.detach())
