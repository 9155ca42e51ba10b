"""Makes golden answers: named hard cases, answered by the PyTorch network in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema, Numeric
from model_export.bundle.golden import Golden, by_name
from model_export.bundle.manifest import TOLERANCE, Calibration
from model_export.quality.golden_users import GoldenUsers
from model_export.quality.random_records import records
from training.qin import QIN, Batch

ORDINARY = 96  # items of each kind in the pool
SPECIAL = 8
CANDIDATES = 16
MOST_LEVELS = 256  # of one context feature; a larger vocabulary is sampled evenly
NONE: Mapping[str, float] = {}
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
        golden = _answered(network, _Cases(network, scale, seed), calibration)
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
    user: int  # row of the pool's users
    features: NDArray[np.void]  # (1,) of ``request_dtype``


class _Cases:
    """A pool of ordinary and odd items, and requests over them."""

    def __init__(self, network: QIN, dense_scale: float, seed: int) -> None:
        self.schema, self.random = network.schema, np.random.default_rng(seed)
        self.users = GoldenUsers(network, dense_scale, seed)
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
        schema = self.schema
        return records(schema.stored_item, schema.item_dtype, count, dense_scale, self.random)

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
        for name, user, features in self.users.cases():
            request = self._request(name, full // 2)
            found.append(replace(request, user=user, features=features))
        return found

    def record(self, request: _Request) -> NDArray[np.void] | None:
        """(1,) the request's user, None for no record."""
        return None if request.user < 0 else self.users.users[request.user :][:1]

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
            *self.users.some(),
        )


def _answered(network: QIN, cases: _Cases, calibration: Calibration | None) -> Golden:
    requests = cases.requests()
    items = {
        name: value.double() if value.is_floating_point() else value
        for name, value in network_items(network.schema, cases.items).items()
    }
    probability = np.concatenate(
        [
            network_answer(
                network,
                items,
                r.history,
                r.candidates,
                r.context,
                calibration,
                user=cases.record(r),
                features=by_name(r.features[0]),
            )
            for r in requests
        ]
    ).astype(np.float64)
    schema = network.schema
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
        users=cases.users.users if schema.user else None,
        user=np.array([r.user for r in requests], np.int32) if schema.user else None,
        features=np.concatenate([r.features for r in requests]) if schema.request else None,
    )


def network_items(schema: FeatureSchema, rows: ItemRows) -> dict[str, torch.Tensor]:
    """Make the network's item inputs: padding, then ``rows``; unknown indices become 0."""
    padded = np.concatenate([np.zeros(1, schema.item_dtype), rows])
    return _tensors(schema.item, padded)


def _tensors(
    features: Iterable[Categorical | CategoricalList | Dense], rows: NDArray[np.void]
) -> dict[str, torch.Tensor]:
    tensors = {}
    for feature in features:
        values = rows[feature.name]
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
    *,
    user: NDArray[np.void] | None = None,
    features: Mapping[str, float] = NONE,
) -> NDArray[np.floating]:
    """(C,) probabilities of the network, in its precision; positions are rows of ``items``.

    ``user``: (1,) of ``schema.user_dtype``, None for no record; ``features``: of the
    request, by name; missing where there is none.
    """
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
        **user_inputs(network, user, features, count),
    )
    assert not network.training, "golden answers need the network in eval mode"
    with torch.inference_mode():
        logit = network(batch)
        if calibration is not None:
            logit = calibration.slope * logit + calibration.intercept
        answer: NDArray[np.floating] = torch.sigmoid(logit).numpy()
    return answer


def user_inputs(
    network: QIN, user: NDArray[np.void] | None, features: Mapping[str, float], count: int
) -> dict[str, Any]:
    """The fields of a ``Batch`` for the user and the request, the same in all its rows."""
    schema, dtype = network.schema, network.fc.weight.dtype
    found: dict[str, Any] = {}
    if schema.user:
        rows = np.zeros(2, schema.user_dtype)  # row 0: no record
        if user is not None:
            for name in rows.dtype.names or ():
                rows[name][1] = user[name][0]
        tensors = _tensors(schema.user, rows).items()
        found["users"] = {n: v.to(dtype) if v.is_floating_point() else v for n, v in tensors}
        found["user"] = torch.full((count,), int(user is not None))
    if schema.request:
        found["request"] = {}
    for feature in schema.request:
        if isinstance(feature, Numeric):
            number = features.get(feature.name, np.nan)
            value = torch.full((count,), number, dtype=dtype)
        else:
            index = np.array([features.get(feature.name, 0)], np.int32)
            value = _tensor(index, feature.vocabulary).expand(count)
        found["request"][feature.name] = value
    return found


def known(values: NDArray[np.int32], vocabulary: int) -> NDArray[np.int64]:
    """Replace indices outside the vocabulary by 0."""
    return np.where((values > 0) & (values < vocabulary), values, 0).astype(np.int64)


def _tensor(values: NDArray[np.int32], vocabulary: int) -> torch.Tensor:
    return torch.from_numpy(known(values, vocabulary))
