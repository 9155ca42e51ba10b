"""Tells context and request features apart where a protocol does not: by the model's schema."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np

from feature_store.schema import FeatureSchema, Numeric
from service.errors import InvalidField
from service.scoring.query import ScoreQuery

INDEX, NUMBER = "INT64", "FP32"  # datatypes


def placed(query: ScoreQuery, schema: FeatureSchema) -> ScoreQuery:
    """Return the query with its tensors in ``context`` and ``features``. InvalidField names a
    tensor whose type is not that of the model's feature.

    A name that the schema does not have is a request feature.
    """
    context, features = dict(query.context), dict(query.features)
    of_candidates = {feature.name for feature in schema.context}
    of_request = {feature.name: feature for feature in schema.request}
    for name, tensor in (query.tensors or {}).items():
        wanted = of_request.get(name)
        if name in of_candidates:
            if not isinstance(tensor, np.ndarray):
                raise _other_type(name, INDEX)
            context[name] = tensor
        elif wanted is not None and isinstance(wanted, Numeric) is isinstance(tensor, np.ndarray):
            raise _other_type(name, NUMBER if isinstance(wanted, Numeric) else INDEX)
        elif isinstance(tensor, np.ndarray):
            features[name] = tensor.item()
        else:
            features[name] = None if isnan(tensor) else tensor  # a tensor has no null
    return replace(query, context=context, features=features, tensors=None)


def _other_type(name: str, datatype: str) -> InvalidField:
    kind = "a number" if datatype == NUMBER else "an index"
    return InvalidField.of(
        "inputs", name, "datatype", detail=f"must be {datatype}: {name} is {kind}"
    )
