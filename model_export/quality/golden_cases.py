"""Makes golden answers: named hard cases, answered by the PyTorch network in float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import TOLERANCE, Calibration
from training.qin import QIN, Batch

ORDINARY = 96  # items of each kind in the pool
SPECIAL = 8
CANDIDATES = 16
MOST_LEVELS = 256  # of one context feature; a larger vocabulary is sampled evenly
DENSE_SCALES = (1.0, 0.3, 0.1, 0.03, 0.01)


def golden_answers(
    network: QIN, seed: int = 20242025, *, calibration: Calibration | None = None
) -> Golden:
    """Make raw inputs and the network's answers in float64, calibrated if ``calibration`` is given.

    Dense inputs have the largest scale that does not saturate most answers at 0 or 1, where errors
    would vanish.
    """
    network, attempts = copy.deepcopy(network).double().eval(), []
    for scale in DENSE_SCALES:
        golden = _answered(network, _Cases(network.schema, scale, seed), calibration)
        if informative(golden) >= 0.5:
            return golden
        attempts.append(golden)
    return max(attempts, key=informative)


def informative(golden: Golden) -> float:
    """Share of the answers between 0.02 and 0.98."""
    return float(((golden.probability > 0.02) & (golden.probability < 0.98)).mean())


@dataclass(frozen=True, slots=True)
class _Request:
    name: str
    history: NDArray[np.int32]
    candidates: NDArray[np.int32]
    context: NDArray[np.int32]


class _Cases:
    """A pool of ordinary and odd items, and requests over them."""

    def __init__(self, schema: FeatureSchema, dense_scale: float, seed: int) -> None:
        self.schema, self.random = schema, np.random.default_rng(seed)
        self.kinds: dict[str, NDArray[np.int32]] = {}
        pool: list[ItemRows] = []
        for kind, rows in self._items(dense_scale):
            start = sum(map(len, pool))
            self.kinds[kind] = np.arange(start, start + len(rows), dtype=np.int32)
            pool.append(rows)
        self.items: ItemRows = np.concatenate(pool)

    def _items(self, dense_scale: float) -> list[tuple[str, ItemRows]]:
        random, schema = self.random, self.schema
        kinds = [("ordinary items", self._ordinary(ORDINARY, dense_scale))]
        for feature in schema.item:
            rows = self._ordinary(SPECIAL, dense_scale)
            match feature:
                case CategoricalList():
                    rows[feature.name] = 0
                    kinds.append((f"{feature.name} all padding", rows))
                case Categorical():
                    absent, beyond = rows, rows.copy()
                    absent[feature.name] = 0
                    beyond[feature.name] = random.integers(
                        feature.vocabulary, 2**31 - 1, SPECIAL, endpoint=True
                    )
                    beyond[feature.name][0] = feature.vocabulary
                    kinds.append((f"{feature.name} 0", absent))
                    kinds.append((f"{feature.name} beyond the vocabulary", beyond))
                case Dense():
                    rows[feature.name] = 0
                    kinds.append((f"{feature.name} all zero", rows))
        return kinds

    def _ordinary(self, count: int, dense_scale: float) -> ItemRows:
        random = self.random
        rows = np.zeros(count, self.schema.item_dtype)
        for feature in self.schema.stored_item:
            match feature:
                case Categorical():
                    rows[feature.name] = random.integers(1, feature.vocabulary, count)
                case CategoricalList():
                    indices = random.integers(1, feature.vocabulary, (count, feature.slots))
                    in_use = random.integers(1, feature.slots, count, endpoint=True)
                    padding = np.arange(feature.slots) < feature.slots - in_use[:, None]
                    rows[feature.name] = np.where(padding, 0, indices)
                case Dense():
                    rows[feature.name] = random.normal(0, dense_scale, (count, feature.size))
        return rows

    def requests(self) -> list[_Request]:
        full = self.schema.history_length
        lengths = {0: "empty history", 1: "history of one", full: "full history"}
        lengths |= {n: f"history of {n}" for n in (2, full // 2, full - 1) if 1 < n < full}
        found = [self._request(name, length) for length, name in lengths.items()]
        for kind, positions in self.kinds.items():
            found.append(self._request(f"candidates: {kind}", full // 2, candidates=positions))
            found.append(self._request(f"history: {kind}", full, history=positions))
        for column, feature in enumerate(self.schema.context):
            count = min(feature.vocabulary, MOST_LEVELS)
            levels = np.linspace(0, feature.vocabulary - 1, count).round()
            for name, values in (
                (f"every level of {feature.name}", levels),
                (f"{feature.name} beyond the vocabulary", [feature.vocabulary, 2**31 - 1]),
            ):
                request = self._request(name, full // 2, count=len(values))
                request.context[:, column] = values
                found.append(request)
        return found

    def _request(
        self,
        name: str,
        length: int,
        *,
        history: NDArray[np.int32] | None = None,
        candidates: NDArray[np.int32] | None = None,
        count: int = CANDIDATES,
    ) -> _Request:
        random = self.random
        if candidates is None:
            candidates = random.choice(self.kinds["ordinary items"], count)
        if history is None:
            history = self.kinds["ordinary items"]
        context = [
            random.integers(1, feature.vocabulary, len(candidates))
            for feature in self.schema.context
        ]
        return _Request(
            name,
            random.choice(history, length).astype(np.int32),
            candidates.astype(np.int32),
            np.array(context, np.int32).reshape(len(context), len(candidates)).T.copy(),
        )


def _answered(network: QIN, cases: _Cases, calibration: Calibration | None) -> Golden:
    requests = cases.requests()
    items = {
        name: value.double() if value.is_floating_point() else value
        for name, value in network_items(network.schema, cases.items).items()
    }
    probability = np.concatenate(
        [
            network_answer(network, items, r.history, r.candidates, r.context, calibration)
            for r in requests
        ]
    ).astype(np.float64)
    return Golden(
        items=cases.items,
        names=np.array([r.name for r in requests]),
        history=np.concatenate([r.history for r in requests]),
        history_offsets=np.cumsum([0, *(len(r.history) for r in requests)], dtype=np.int64),
        candidates=np.concatenate([r.candidates for r in requests]),
        candidate_offsets=np.cumsum([0, *(len(r.candidates) for r in requests)], dtype=np.int64),
        context=np.concatenate([r.context for r in requests]),
        probability=probability,
        bound=np.full(len(probability), TOLERANCE),
    )


def network_items(schema: FeatureSchema, rows: ItemRows) -> dict[str, torch.Tensor]:
    """Make the network's item inputs: padding, then ``rows``; unknown indices become 0."""
    padded = np.concatenate([np.zeros(1, schema.item_dtype), rows])
    tensors = {}
    for feature in schema.item:
        values = padded[feature.name]
        if isinstance(feature, Dense):
            tensors[feature.name] = torch.from_numpy(values.astype(np.float32))
        else:
            tensors[feature.name] = _tensor(values, feature.vocabulary)
    return tensors


def network_answer(
    network: QIN,
    items: dict[str, torch.Tensor],
    history: NDArray[np.int32],
    candidates: NDArray[np.int32],
    context: NDArray[np.int32],
    calibration: Calibration | None = None,
) -> NDArray[np.floating]:
    """(C,) probabilities of the network, in its precision; positions are rows of ``items``."""
    count, full = len(candidates), network.schema.history_length
    slots = torch.zeros(count, full, dtype=torch.int64)  # (C, L), newest last
    if len(history):
        slots[:, -len(history) :] = torch.from_numpy(history.astype(np.int64)) + 1
    levels = [_tensor(context[:, i], f.vocabulary) for i, f in enumerate(network.schema.context)]
    batch = Batch(
        items=items,
        target=torch.from_numpy(candidates.astype(np.int64)) + 1,
        history=slots,
        context=torch.stack(levels, 1) if levels else torch.zeros(count, 0, dtype=torch.int64),
        label=torch.zeros(count),
    )
    assert not network.training, "golden answers need the network in eval mode"
    with torch.inference_mode():
        logit = network(batch)
        if calibration is not None:
            logit = calibration.slope * logit + calibration.intercept
        answer: NDArray[np.floating] = torch.sigmoid(logit).numpy()
    return answer


def known(values: NDArray[np.int32], vocabulary: int) -> NDArray[np.int64]:
    """Replace indices outside the vocabulary by 0."""
    return np.where((values > 0) & (values < vocabulary), values, 0).astype(np.int64)


def _tensor(values: NDArray[np.int32], vocabulary: int) -> torch.Tensor:
    return torch.from_numpy(known(values, vocabulary))
