"""Random requests, and what the network answers to them in float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import Dense, FeatureSchema
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import ItemVectors
from model_export.quality.golden_cases import network_answer, network_items
from training.qin import QIN


@dataclass(frozen=True)
class Request:
    items: ItemRows
    history: NDArray[np.int32]
    candidates: NDArray[np.int32]
    context: NDArray[np.int32]


def random_request(schema: FeatureSchema, *, length: int, count: int = 9, seed: int = 0) -> Request:
    """Indices from 0 to beyond the vocabulary, whole lists of padding among them."""
    random = np.random.default_rng(seed)
    items = np.zeros(30, schema.item_dtype)
    for feature in schema.item:
        shape = items[feature.name].shape
        if isinstance(feature, Dense):
            items[feature.name] = random.normal(0, 0.5, shape)
        else:
            items[feature.name] = random.integers(0, feature.vocabulary + 3, shape)
            items[feature.name][random.random(len(items)) < 0.2] = 0
    context = [random.integers(0, f.vocabulary + 2, count) for f in schema.context]
    return Request(
        items,
        random.integers(0, len(items), length).astype(np.int32),
        random.integers(0, len(items), count).astype(np.int32),
        np.array(context, np.int32).reshape(len(context), count).T.copy(),
    )


def in_float64(network: QIN, request: Request) -> NDArray[np.float64]:
    """The network's own answer, free of float32 rounding."""
    exact = copy.deepcopy(network).double()
    items = {
        name: value.double() if value.is_floating_point() else value
        for name, value in network_items(network.schema, request.items).items()
    }
    answer = network_answer(exact, items, request.history, request.candidates, request.context)
    return answer.astype(np.float64)


def folded(model: FoldedModel, request: Request) -> NDArray[np.float32]:
    vectors = model.items(request.items)
    history = model.history(vectors.vector[request.history])
    return model.rank(candidates(model, request), history)


def candidates(model: FoldedModel, request: Request) -> ItemVectors:
    """The request's candidates in the contexts it asks for."""
    return model.in_context(model.items(request.items).take(request.candidates), request.context)
