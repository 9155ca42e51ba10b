"""Benchmarks training steps of the reassociated network against the published formulation.

Both run forward + backward on the same weights and batch, in turns, in one process. The batch
resembles the challenge's: full histories of Zipf-distributed items, so that popular ones recur and
the reassociated network embeds them once. Reading a batch (finding equal items; for the published
loader, gathering the features of every position) is not timed.

``arithmetic_ratio`` compares the matrix products alone. ``speedup_same_kernels`` has both multiply
by torch's default library; ``speedup`` is the network as trained, its large products by oneDNN.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from feature_store.schema import Categorical, Dense, FeatureSchema, Numeric, Stored
from training.operations import Dropout
from training.progress import OnProgress, no_progress
from training.published_qin import Positions, PublishedQIN
from training.qin import QIN, Batch, QINSizes

ZIPF = 0.8  # popularity of the k-th item ~ k^-0.8
WARM_UP = 2


def run(
    *,
    batch: int = 256,
    history: int | None = None,
    repeats: int = 11,
    threads: int | None = None,
    schema: FeatureSchema | None = None,
    sizes: QINSizes | None = None,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> dict[str, Any]:
    """Measure medians over ``repeats`` turns, in milliseconds, and the figures of `make bench`.

    ``history`` defaults to the schema's length, the schema to MicroLens, ``threads`` to torch's
    choice. ``max_gradient_difference`` is the largest over the parameters of max|g₁ − g₂| /
    max|g₁|, in float64, with dropout off (masks differ) and batch statistics on. In float32 a few
    of the PReLUs' inputs are so close to zero that rounding decides their sign, which changes
    gradients in either order of multiplication: ``float32_gradient_difference`` compares the two
    in float32, ``float32_rounding`` the published formulation in float32 and float64.
    """
    schema = schema or FeatureSchema.microlens()
    with torch_threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = random_network(schema, sizes or QINSizes())
        rows = random_batch(schema, batch, history or schema.history_length, seed)
        published, positions = PublishedQIN(network), Positions.of(rows)
        ours = Step(network, network, rows, rows.label)
        theirs = Step(network, published, positions, rows.label)
        differences = gradient_differences(network, rows)
        with same_kernels():  # FlopCounterMode does not count oneDNN's
            ours_gflop, theirs_gflop = ours.gflop(), theirs.gflop()
        optimiser = torch.optim.Adam(network.parameters(), lr=0.0)
        median = medians(
            {
                "published": theirs,
                "reassociated": ours,
                "reassociated_same_kernels": same_kernels()(ours),
                "optimiser": optimiser.step,
            },
            repeats,
            on_progress,
        )
        return {
            "speedup": median["published"] / median["reassociated"],
            "speedup_same_kernels": median["published"] / median["reassociated_same_kernels"],
            **differences,
            **{f"{name}_ms": value for name, value in median.items()},
            "optimiser_share": median["optimiser"] / (median["optimiser"] + median["reassociated"]),
            "speedup_with_optimiser": (median["published"] + median["optimiser"])
            / (median["reassociated"] + median["optimiser"]),
            "published_gflop": theirs_gflop,
            "reassociated_gflop": ours_gflop,
            "arithmetic_ratio": theirs_gflop / ours_gflop,
            "batch": batch,
            "history": rows.history.shape[1],
            "distinct_items": len(next(iter(rows.items.values()))) - 1,
            "parameters": sum(p.numel() for p in network.parameters()),
            "threads": torch.get_num_threads(),
            "repeats": repeats,
        }


class Step:
    """Forward + backward of one formulation over the parameters of ``network``."""

    def __init__(self, network: QIN, formulation: nn.Module, rows: Any, label: Tensor) -> None:
        self.network, self.formulation, self.rows, self.label = network, formulation, rows, label

    def __call__(self) -> None:
        self.network.zero_grad()
        logit = self.formulation(self.rows)
        F.binary_cross_entropy_with_logits(logit, self.label).backward()  # type: ignore[no-untyped-call]

    def gradients(self) -> dict[str, Tensor]:
        self()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in self.network.named_parameters()
        }

    def gflop(self) -> float:
        """Count the operations of the matrix products, from the shapes dispatched."""
        with FlopCounterMode(display=False) as counter:
            self()
        return float(counter.get_total_flops()) / 1e9


def gradient_differences(network: QIN, rows: Batch) -> dict[str, Any]:
    """Compare gradients of the formulations in float64 and float32, and float32 with float64."""
    network = without_dropout(network)
    float32 = _gradients(network, rows)
    exact = _gradients(network.double(), in_float64(rows))
    difference, worst = _largest_difference(exact["published"], exact["reassociated"])
    both = _largest_difference(float32["published"], float32["reassociated"])[0]
    rounding = _largest_difference(exact["published"], float32["published"])[0]
    return {
        "max_gradient_difference": difference,
        "worst_parameter": worst,
        "float32_gradient_difference": both,
        "float32_rounding": rounding,
    }


def _gradients(network: QIN, rows: Batch) -> dict[str, dict[str, Tensor]]:
    published = Step(network, PublishedQIN(network), Positions.of(rows), rows.label)
    reassociated = Step(network, network, rows, rows.label)
    return {"published": published.gradients(), "reassociated": reassociated.gradients()}


def _largest_difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> tuple[float, str]:
    tiny = torch.finfo(torch.float32).tiny
    return max(
        (float((found[name] - g).abs().max() / g.abs().max().clamp_min(tiny)), name)
        for name, g in expected.items()
    )


def in_float64(rows: Batch) -> Batch:
    items, users, request = (
        {n: v.double() if v.is_floating_point() else v for n, v in values.items()}
        for values in (rows.items, rows.users, rows.request)
    )
    return replace(rows, items=items, users=users, request=request, label=rows.label.double())


def medians(
    works: dict[str, Callable[[], Any]], repeats: int, on_progress: OnProgress
) -> dict[str, float]:
    """Measure milliseconds by name, in turns, so that disturbances affect all alike."""
    turns: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-WARM_UP, repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn >= 0:
                turns[name].append((time.perf_counter() - start) * 1e3)
        on_progress("turns", max(0, turn + 1), repeats)
    return {name: statistics.median(values) for name, values in turns.items()}


@contextlib.contextmanager
def same_kernels() -> Iterator[None]:
    """Disable oneDNN: the network multiplies by torch's default library."""
    mkldnn, before = torch.backends.mkldnn, torch.backends.mkldnn.enabled
    try:
        mkldnn.enabled = False  # type: ignore[assignment]
        yield
    finally:
        mkldnn.enabled = before


def without_dropout(network: QIN) -> QIN:
    """Copy a network, with dropout off."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    return network


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        yield
    finally:
        torch.set_num_threads(before)


def random_network(schema: FeatureSchema, sizes: QINSizes) -> QIN:
    """Build a network in training mode, with embeddings as large as trained ones."""
    network = QIN(schema, sizes).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(std=0.1)
                module.weight[0].zero_()
    return network


def random_batch(schema: FeatureSchema, batch: int, history: int, seed: int) -> Batch:
    """Draw full histories of Zipf-distributed items from the identity feature's vocabulary."""
    random = np.random.default_rng(seed)
    identity = [f for f in schema.item if isinstance(f, Categorical) and f.name == schema.identity]
    catalogue = identity[0].vocabulary if identity else 10_000
    popularity = np.arange(1, catalogue, dtype=np.float64) ** -ZIPF
    drawn = 1 + random.choice(
        catalogue - 1, size=(batch, history + 1), p=popularity / popularity.sum()
    )
    distinct, place = np.unique(drawn, return_inverse=True)
    index = torch.from_numpy(1 + place.reshape(drawn.shape))  # item 0 is the padding item
    items = _random_values(schema.item, len(distinct), random)
    if identity:
        items[identity[0].name][1:] = torch.from_numpy(distinct)
    users = _random_values(schema.user, batch, random)
    context = [random.integers(1, f.vocabulary, batch) for f in schema.context]
    return Batch(
        items=items,
        target=index[:, -1].contiguous(),
        history=index[:, :-1].contiguous(),
        context=torch.from_numpy(np.array(context, np.int64).reshape(len(context), batch).T.copy()),
        label=torch.from_numpy((random.random(batch) < 0.25).astype(np.float32)),
        users=users,
        user=torch.arange(1, batch + 1) if users else None,
        request={n: v[1:] for n, v in _random_values(schema.request, batch, random).items()},
    )


def _random_values(
    features: Sequence[Stored | Numeric], count: int, random: np.random.Generator
) -> dict[str, Tensor]:
    """Draw (count + 1, …) by feature; row 0 is padding and zero."""
    values: dict[str, Tensor] = {}
    for feature in features:
        value: Any
        match feature:
            case Numeric():
                value = random.standard_normal(count + 1, np.float32)
            case Dense():
                value = random.standard_normal((count + 1, feature.size), np.float32)
            case Categorical():
                value = random.integers(1, feature.vocabulary, count + 1)
            case _:
                value = random.integers(0, feature.vocabulary, (count + 1, feature.slots))
        value[0] = 0
        values[feature.name] = torch.from_numpy(value)
    return values
