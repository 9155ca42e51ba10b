"""Builds a bundle from a network: fold, write the graphs, compute golden answers, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feature_store.schema import FeatureSchema
from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle, check_version, free_version, staged
from model_export.bundle.errors import BundleError
from model_export.bundle.graphs import Precision
from model_export.bundle.manifest import (
    FORMAT,
    GOLDEN,
    PLAIN_FORMAT,
    Calibration,
    ContentOrigin,
    Manifest,
    MultiplyAdds,
    NetworkSizes,
    QuantisationGate,
    Training,
    dense_items,
    no_content,
)
from model_export.bundle.runtime import FoldedModel
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.multiply_adds import multiply_adds
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.published import published
from model_export.graphs.ranker import ranker, ranker_int8, ranker_rows
from model_export.graphs.towers import context_tower, history_tower, item_tower
from model_export.graphs.user_tower import save_tables, user_tower
from model_export.quality.gate import measure
from model_export.quality.golden_cases import golden_answers
from model_export.quality.held_out import HeldOut
from model_export.quality.parity import bounded, check_folds, check_rounding
from training.qin import QIN

FOLD = "fold the weights"
WRITE = "write the graphs"
GOLDEN_ANSWERS = "compute golden answers"
COMPARE = "compare the graphs with them"
GATE = "compare int8 and bf16 with float32"
PUBLISH = "compute digests and publish"
STEPS = (FOLD, WRITE, GOLDEN_ANSWERS, COMPARE, GATE, PUBLISH)  # GATE with int8 or bf16 alone

# Names of the graphs' own inputs and outputs, reserved.
RESERVED = frozenset(
    {"vector", "row", "share", "keys", "values", "rows", "probability", "logit"}
    | {"history_keys", "history_values", "history_rows", "attention"}
)


@dataclass(frozen=True, slots=True)
class Gated:
    """The data of a gate, and whether to publish past it."""

    held_out: HeldOut
    force: bool = False  # publish even if the gate fails, which the manifest records


class Int8(Gated):
    """Build a ranker with int8 products, too, if it passes its gate."""


class Bf16(Gated):
    """Permit the ranker in bfloat16, if it passes its gate; needs OpenVINO and such a processor."""


def build(
    network: QIN,
    models: Path,
    *,
    version: str | None = None,
    training: Training | None = None,
    int8: Int8 | None = None,
    bf16: Bf16 | None = None,
    calibration: Calibration | None = None,
    content: ContentOrigin | None = None,
    pictures: Mapping[str, bytes] | None = None,
    accept_rounding: bool = False,
    announce: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Build and publish ``models/VERSION``.

    Raises ParityError, GateError or BundleError; then nothing is published. ``network`` in eval
    mode; ``calibration`` is folded into its last layer; ``content``: origin of the vectors of an
    item feature that it was trained with; ``pictures``: files to include; ``accept_rounding``
    publishes errors of float32 beyond their bounds; ``announce`` is called with each of ``STEPS``.
    """
    schema, created = network.schema, datetime.now(UTC)
    _refuse_reserved_names(schema)
    if content is not None and content.feature not in dense_items(schema):
        raise BundleError(no_content(content.feature))
    version = check_version(version) if version else free_version(models, created)
    if bf16 is not None:
        openvino.require_bf16()
    with staged(models, version, schema) as staging:
        announce(FOLD)
        folded = FoldedNetwork.of(network)
        if calibration is not None:
            folded = folded.calibrated(calibration.slope, calibration.intercept)

        announce(WRITE)
        writers = (item_tower(folded), history_tower(folded), ranker(folded))
        for writer in writers:
            writer.save(staging.path)
        if (rows := ranker_rows(folded, writers[-1])) is not None:
            rows.save(staging.path)
        if schema.context:
            context_tower(folded).save(staging.path)
        users = None
        if folded.user is not None:
            users = user_tower(folded)
            users.save(staging.path)
            save_tables(folded, staging.path)

        announce(GOLDEN_ANSWERS)
        golden = golden_answers(network, calibration=calibration)
        fold_error = check_folds(folded, golden, version)

        announce(COMPARE)
        golden, parity = check_rounding(
            FoldedModel(staging),
            bounded(folded, golden),
            version,
            fold_error=fold_error,
            accept=accept_rounding,
        )
        golden.save(staging.path / GOLDEN)
        gates: dict[Precision, QuantisationGate] = {}
        if int8 is not None or bf16 is not None:
            announce(GATE)
        if int8 is not None:
            ranker_int8(folded).save(staging.path)
            model = FoldedModel(staging, precision="int8")
            gates["int8"] = measure(model, int8.held_out, golden, int8.force)
        if bf16 is not None:
            model = FoldedModel(staging, precision="bf16", provider="openvino")
            gates["bf16"] = measure(model, bf16.held_out, golden, bf16.force)

        announce(PUBLISH)
        for name, picture in (pictures or {}).items():
            (staging.path / name).write_bytes(picture)
        manifest = Manifest(
            format=_format(network),
            version=version,
            created=created,
            feature_schema=schema,
            sizes=NetworkSizes(
                attention_width=network.sizes.attention_width,
                layers=network.sizes.layers,
                rows=network.sizes.rows,
                output_bias=network.sizes.output_bias,
            ),
            parameters=sum(p.numel() for p in network.parameters()),
            training=training or Training(),
            multiply_adds=_count(network, *writers, users),
            parity=parity,
            calibration=calibration,
            quantisation=gates.get("int8"),
            bf16=gates.get("bf16"),
            content=content,
            files=staging.records(),
        )
        return staging.publish(manifest)


def _format(network: QIN) -> int:
    """The earliest format that has what this network needs."""
    schema = network.schema
    more = schema.user or schema.request or schema.shared or network.sizes.output_bias
    return FORMAT if more else PLAIN_FORMAT


def _count(
    network: QIN,
    items: GraphWriter,
    histories: GraphWriter,
    candidates: GraphWriter,
    users: GraphWriter | None,
) -> MultiplyAdds:
    full = network.schema.history_length
    return MultiplyAdds(
        history_length=full,
        candidate=multiply_adds(candidates.model(), {"C": 1, "L": full}),
        published_candidate=multiply_adds(published(network).model(), {"C": 1, "L": full}),
        item=multiply_adds(items.model(), {"N": 1}),
        history_item=multiply_adds(histories.model(), {"L": 1}),
        user=0 if users is None else multiply_adds(users.model(), {"N": 1}),
    )


def _refuse_reserved_names(schema: FeatureSchema) -> None:
    names, reserved = {f.name for f in schema.stored_item}, RESERVED
    if schema.user or schema.request:
        names |= {f.name for f in (*schema.user, *schema.request)}
        reserved |= {"user", "user_row"}
    taken = sorted(names & reserved)
    if taken:
        raise BundleError(
            f"schema: feature named {', '.join(taken)}: reserved by the graphs; "
            "rename the feature in the schema and in the data, and train again"
        )
