"""From a network to a published bundle: fold, write, ask the golden questions, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feature_store.schema import FeatureSchema
from model_export.bundle.bundle import Bundle, Staging, check_version, free_version, staged
from model_export.bundle.errors import BundleError, ParityError
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import (
    FORMAT,
    GOLDEN,
    TOLERANCE,
    Calibration,
    Manifest,
    MultiplyAdds,
    NetworkSizes,
    Parity,
    QuantisationGate,
    Training,
)
from model_export.bundle.runtime import FoldedModel
from model_export.graphs.folded import FoldedNetwork
from model_export.graphs.multiply_adds import multiply_adds
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.published import published
from model_export.graphs.ranker import ranker, ranker_int8
from model_export.graphs.towers import context_tower, history_tower, item_tower
from model_export.quality.gate import measure
from model_export.quality.golden_cases import golden_answers, informative
from model_export.quality.held_out import HeldOut
from training.qin import QIN

FOLD = "fold the weights"
WRITE = "write the graphs"
ASK = "ask the PyTorch network"
COMPARE = "compare the graphs with it"
GATE = "hold int8 against float32"
PUBLISH = "digest and publish"
STEPS = (FOLD, WRITE, ASK, COMPARE, GATE, PUBLISH)  # GATE with int8 alone

# Names the graphs' own inputs and outputs have; a feature cannot be called the same.
RESERVED = frozenset(
    {"vector", "row", "share", "keys", "values", "rows", "probability", "logit"}
    | {"history_keys", "history_values", "history_rows", "attention"}
)


@dataclass(frozen=True, slots=True)
class Int8:
    """A ranker with int8 products is wanted too, if it passes its gate."""

    held_out: HeldOut
    force: bool = False  # publish it whatever the gate says; the bundle then says so


def build(
    network: QIN,
    models: Path,
    *,
    version: str | None = None,
    training: Training | None = None,
    int8: Int8 | None = None,
    calibration: Calibration | None = None,
    pictures: Mapping[str, bytes] | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Publish ``models/VERSION``. Raises ParityError, GateError or BundleError, and then leaves
    nothing.

    ``network`` in eval mode; ``calibration`` is what has been done to its last layer, and
    ``pictures`` are files to go with it; ``announce`` is told each of ``STEPS`` as it begins.
    """
    schema, created = network.schema, datetime.now(UTC)
    _refuse_reserved_names(schema)
    version = check_version(version) if version else free_version(models, created)
    with staged(models, version, schema) as staging:
        announce(FOLD)
        folded = FoldedNetwork.of(network)

        announce(WRITE)
        writers = (item_tower(folded), history_tower(folded), ranker(folded))
        for writer in writers:
            writer.save(staging.path)
        if schema.context:
            context_tower(folded).save(staging.path)

        announce(ASK)
        golden = golden_answers(network)
        golden.save(staging.path / GOLDEN)

        announce(COMPARE)
        parity = check_parity(staging, golden)
        gate = None
        if int8 is not None:
            announce(GATE)
            gate = _through_the_gate(staging, folded, golden, int8)

        announce(PUBLISH)
        for name, content in (pictures or {}).items():
            (staging.path / name).write_bytes(content)
        manifest = Manifest(
            format=FORMAT,
            version=version,
            created=created,
            feature_schema=schema,
            sizes=NetworkSizes(
                attention_width=network.sizes.attention_width,
                layers=network.sizes.layers,
                rows=network.sizes.rows,
            ),
            parameters=sum(p.numel() for p in network.parameters()),
            training=training or Training(),
            multiply_adds=_count(network, *writers),
            parity=parity,
            calibration=calibration,
            quantisation=gate,
            files=staging.records(),
        )
        return staging.publish(manifest)


def check_parity(staging: Staging, golden: Golden) -> Parity:
    """Ask the written graphs every golden question. Raises ParityError beyond the tolerance."""
    difference = golden.compare(FoldedModel(staging))
    if not difference.max_abs_error <= TOLERANCE:
        raise ParityError(
            f"version {staging.version} is not published: a folded answer differs from the "
            f"PyTorch network's by {difference.max_abs_error:.3g} (at most {TOLERANCE:g} is "
            f"allowed); worst case: {difference.worst_case}. Weights of extreme size, or a defect "
            "in a fold, do this: look at the checkpoint's metrics first"
        )
    return Parity(
        tolerance=TOLERANCE,
        max_abs_error=difference.max_abs_error,
        worst_case=difference.worst_case,
        cases=difference.cases,
        informative=informative(golden),
    )


def _through_the_gate(
    staging: Staging, folded: FoldedNetwork, golden: Golden, int8: Int8
) -> QuantisationGate:
    """Write the int8 ranker beside the other. GateError when it may not be published."""
    ranker_int8(folded).save(staging.path)
    model = FoldedModel(staging, precision="int8")
    return measure(model, int8.held_out, golden, int8.force)


def _count(
    network: QIN, items: GraphWriter, histories: GraphWriter, candidates: GraphWriter
) -> MultiplyAdds:
    full = network.schema.history_length
    return MultiplyAdds(
        history_length=full,
        candidate=multiply_adds(candidates.model(), {"C": 1, "L": full}),
        published_candidate=multiply_adds(published(network).model(), {"C": 1, "L": full}),
        item=multiply_adds(items.model(), {"N": 1}),
        history_item=multiply_adds(histories.model(), {"L": 1}),
    )


def _refuse_reserved_names(schema: FeatureSchema) -> None:
    taken = sorted({f.name for f in (*schema.item, *schema.context)} & RESERVED)
    if taken:
        raise BundleError(
            f"schema: feature named {', '.join(taken)}: the graphs use that name themselves; "
            "rename the feature in the schema and in the data, and train again"
        )
