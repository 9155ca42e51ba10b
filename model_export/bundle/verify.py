"""Verifies that a bundle answers on this machine as its PyTorch network did, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema, Numeric
from model_export.bundle.bundle import REBUILD, Bundle
from model_export.bundle.errors import BundleError, ParityError, said
from model_export.bundle.golden import Difference, Golden
from model_export.bundle.manifest import GOLDEN, INT8, MANIFEST, USER_TOWER
from model_export.bundle.reduced_golden import golden_logit_error
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import request_dtype

Shape = list[str | int]
Signature = dict[str, tuple[str, Shape]]  # input or output name -> (element type, shape)


def verify(path: Path | str) -> tuple[Bundle, Difference]:
    """Verify digests, then inputs and outputs, then golden answers. Raises BundleError."""
    bundle = Bundle.open(path)
    model = FoldedModel(bundle, precision="int8" if bundle.manifest.quantisation else "fp32")
    check_signatures(bundle, model)
    difference = check_golden(bundle, model)
    if bundle.manifest.quantisation:
        check_runs(bundle, model)
    return bundle, difference


def check_runs(bundle: Bundle, model: FoldedModel) -> None:
    """Check that int8 or bf16 runs. Its accuracy depends on the processor: see
    ``check_same_arithmetic``."""
    graph = bundle.graph(INT8 if model.precision == "int8" else "ranker")
    try:
        error = golden_logit_error(model, bundle.golden())
    except Exception as failure:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(
            f"{graph}: fails while running in {model.precision}: {said(failure)}"
        ) from failure
    if not np.isfinite(error):
        raise BundleError(f"{graph}: returns NaN or infinity in {model.precision}; {REBUILD}")


def check_signatures(bundle: Bundle, model: FoldedModel) -> None:
    """Check names, types and shapes of every graph's inputs and outputs against the schema."""
    known: dict[str, Signature] = model.signatures()
    expectations = signatures(bundle.schema, bundle.manifest.mapped)
    for graph, found in known.items():
        expected = expectations[graph]
        faults = list(_differences(expected, found))
        if faults:
            raise BundleError(
                f"{bundle.graph(graph)}: does not fit the manifest's schema: {'; '.join(faults)}; "
                f"{REBUILD}"
            )


def check_golden(bundle: Bundle, model: FoldedModel) -> Difference:
    """Run every golden request. Raises ParityError beyond their bounds, and BundleError if they
    do not match the manifest or the graphs fail."""
    golden = bundle.golden()
    for fault in _misfits(bundle, golden):
        raise BundleError(f"{bundle.path / GOLDEN}: {fault}; {REBUILD}")
    try:
        difference = golden.compare(model)
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(
            f"{bundle.path}: its graphs fail on the golden requests, so they may not be those "
            f"of its {MANIFEST}: {said(error)}; {REBUILD}"
        ) from error
    if not difference.error <= difference.bound:
        raise ParityError(
            f"{bundle.path}: an answer on this machine differs from the network's by "
            f"{difference.error:.3g} (at most {difference.bound:.3g} is allowed); worst case: "
            f"{difference.worst_case}; do not serve it here: rebuild the bundle, and report the "
            "processor and the onnxruntime version if that does not help"
        )
    return difference


def _misfits(bundle: Bundle, golden: Golden) -> Iterator[str]:
    """Yield mismatches between golden answers and manifest."""
    schema, cases = bundle.schema, bundle.manifest.parity.cases
    if golden.items.dtype != schema.item_dtype:
        yield f"items: {golden.items.dtype} does not fit the manifest's schema"
    if golden.context.shape[1] != len(schema.context):
        yield (
            f"context: {golden.context.shape[1]} columns, and the manifest's schema has "
            f"{len(schema.context)} context features"
        )
    if (golden.users is None) == bool(schema.user) or (
        golden.users is not None and golden.users.dtype != schema.user_dtype
    ):
        yield "users: not of the manifest's schema"
    if (golden.features is None) == bool(schema.request) or (
        golden.features is not None and golden.features.dtype != request_dtype(schema)
    ):
        yield "features: not of the manifest's schema"
    if len(golden.probability) != cases:
        yield (
            f"probability: {len(golden.probability)} golden answers, and the manifest says "
            f"{cases} (parity.cases)"
        )
    if not golden.bound.max() <= bundle.manifest.parity.tolerance:
        yield (
            f"bound: {golden.bound.max():.3g}, and the manifest says at most "
            f"{bundle.manifest.parity.tolerance:.3g} (parity.tolerance)"
        )


def signatures(schema: FeatureSchema, mapped: frozenset[str] = frozenset()) -> dict[str, Signature]:
    """Inputs and outputs of each graph under ``schema``; ``mapped``: features whose tables are
    files of their own."""
    D, X = schema.item_vector_width, schema.network_width
    W = sum(f.width for f in (*schema.user, *schema.request))
    items = _inputs(schema.item)
    users: Signature = {}
    for feature in (*schema.user, *schema.request):
        if feature.name in mapped:
            users[f"{feature.name}.vector"] = ("tensor(float)", ["N", feature.width])
        else:
            users |= _inputs([feature])
    ranker = (
        _levels(schema, "C")
        | _floats(vector=["C", D], row=["C", X])
        | _floats(history_keys=["L", D], history_values=["L", D], history_rows=["L", X])
        | _floats(probability=["C"], logit=["C"], attention=["C", "L"])
    )
    if users:
        ranker |= _floats(user=[1, W], user_row=[1, X])
        users |= _floats(user=["N", W], user_row=["N", X])
    return {
        "item_tower": items | _floats(vector=["N", D], row=["N", X]),
        "context_tower": _levels(schema, "N") | _floats(share=["N", X]),
        USER_TOWER: users,
        "history_tower": _floats(vector=["L", D], keys=["L", D], values=["L", D], rows=["L", X]),
        "ranker": ranker,
        INT8: ranker,
    }


def _inputs(
    features: Sequence[Categorical | CategoricalList | Dense | Numeric],
) -> Signature:
    found: Signature = {}
    for feature in features:
        match feature:
            case Dense():
                found[feature.name] = ("tensor(float)", ["N", feature.size])
            case CategoricalList():
                found[feature.name] = ("tensor(int32)", ["N", feature.slots])
            case Numeric():
                found[feature.name] = ("tensor(float)", ["N"])
            case _:
                found[feature.name] = ("tensor(int32)", ["N"])
    return found


def _levels(schema: FeatureSchema, dimension: str) -> Signature:
    return {f.name: ("tensor(int32)", [dimension]) for f in schema.context}


def _floats(**shapes: Shape) -> Signature:
    return {name: ("tensor(float)", shape) for name, shape in shapes.items()}


def _differences(expected: Signature, found: Signature) -> Iterator[str]:
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in expected:
            yield f"{name} is unknown"
        elif found[name] != expected[name]:
            yield f"{name} is {found[name]} instead of {expected[name]}"
