"""Random requests, and what the network answers to them in float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import Dense, FeatureSchema, Numeric
from model_export.bundle.golden import by_name
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import ItemVectors, UserRow, request_dtype
from model_export.quality.golden_cases import network_answer, network_items
from training.qin import QIN


@dataclass(frozen=True)
class Request:
    items: ItemRows
    history: NDArray[np.int32]
    candidates: NDArray[np.int32]
    context: NDArray[np.int32]
    user: NDArray[np.void] | None = None  # (1,) of schema.user_dtype; None for no record
    features: NDArray[np.void] | None = None  # (1,) of request_dtype


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
        *_user_of(schema, np.random.default_rng([seed, 1])),
    )


def _user_of(
    schema: FeatureSchema, random: np.random.Generator
) -> tuple[NDArray[np.void] | None, NDArray[np.void] | None]:
    """A user, or none, and request features; any of them out of range or missing."""
    user, features = np.zeros(1, schema.user_dtype), np.zeros(1, request_dtype(schema))
    for feature in schema.user:
        shape = user[feature.name].shape
        if isinstance(feature, Dense):
            user[feature.name] = random.normal(0, 0.5, shape)
        else:
            user[feature.name] = random.integers(-1, feature.vocabulary + 3, shape)
    for wanted in schema.request:
        if isinstance(wanted, Numeric):
            features[wanted.name] = random.choice([np.nan, random.normal(0, 4)], p=[0.2, 0.8])
        else:
            features[wanted.name] = random.integers(0, wanted.vocabulary + 2)
    return (
        user if schema.user and random.random() < 0.8 else None,
        features if schema.request and random.random() < 0.8 else None,
    )


def in_float64(network: QIN, request: Request) -> NDArray[np.float64]:
    """The network's own answer, free of float32 rounding."""
    exact = copy.deepcopy(network).double()
    items = {
        name: value.double() if value.is_floating_point() else value
        for name, value in network_items(network.schema, request.items).items()
    }
    answer = network_answer(
        exact,
        items,
        request.history,
        request.candidates,
        request.context,
        user=request.user,
        features=given(request),
    )
    return answer.astype(np.float64)


def folded(model: FoldedModel, request: Request) -> NDArray[np.float32]:
    vectors = model.items(request.items)
    history = model.history(vectors.vector[request.history])
    return model.rank(candidates(model, request), history, user_of(model, request))


def user_of(model: FoldedModel, request: Request) -> UserRow | None:
    return model.user(request.user, given(request))


def given(request: Request) -> dict[str, float]:
    """The request's features by name."""
    return {} if request.features is None else by_name(request.features[0])


def candidates(model: FoldedModel, request: Request) -> ItemVectors:
    """The request's candidates in the contexts it asks for."""
    return model.in_context(model.items(request.items).take(request.candidates), request.context)
