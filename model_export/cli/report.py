"""Prints a bundle's figures as a table."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from feature_store.schema import (
    Categorical,
    CategoricalList,
    Dense,
    FeatureSchema,
    Numeric,
    Stored,
)
from model_export.bundle.bundle import Bundle
from model_export.bundle.manifest import Calibration, QuantisationGate, table_file


def print_info(bundle: Bundle, console: Console) -> None:
    manifest, schema = bundle.manifest, bundle.schema
    sizes, work = manifest.sizes, manifest.multiply_adds
    table = Table(title=f"bundle {manifest.version}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("folder", escape(str(bundle.path)))
    table.add_row("created", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC, format {manifest.format}")
    table.add_row("trained as", escape(_training(bundle)))
    table.add_section()
    table.add_row("schema", escape(schema.name))
    for feature, role in _roles(schema):
        table.add_row(f"  {feature.name}", f"{role}, {_kind(feature)}, width {feature.width}")
    table.add_row("history", f"{schema.history_length} items at most")
    table.add_row(
        "network",
        f"{sizes.layers} quadratic layers of {schema.network_width} with {sizes.rows} rows, "
        f"attention width {sizes.attention_width}, {manifest.parameters:,} parameters",
    )
    table.add_section()
    table.add_row(
        "dense multiply-adds",
        f"{work.candidate:,} per candidate against a history of {work.history_length} "
        f"(as published: {work.published_candidate:,}, "
        f"{work.published_candidate / work.candidate:.1f}×)",
    )
    table.add_row("", f"{work.history_item:,} per history item and request")
    table.add_row("", f"{work.item:,} per item, once per model version")
    if work.user:
        table.add_row("", f"{work.user:,} per request: user and request features")
    if manifest.mapped:
        mapped = sum(manifest.files[table_file(name)].size for name in manifest.mapped)
        names = ", ".join(sorted(manifest.mapped))
        table.add_row("mapped tables", f"{_size(mapped)}, one copy per machine: {names}")
    table.add_section()
    parity = manifest.parity
    table.add_row(
        "parity",
        f"worst |Δp| {parity.max_abs_error:.2g} over {parity.cases} golden answers "
        f"(at most {parity.tolerance:.2g} is allowed)"
        + (f"; folds exact to {parity.fold_error:.2g}" if parity.fold_error is not None else "")
        + ("; ROUNDING ACCEPTED beyond its bounds" if parity.rounding_accepted else ""),
    )
    table.add_row("calibration", calibration_in_words(manifest.calibration))
    table.add_row("int8", gate_in_words(manifest.quantisation))
    table.add_row("bf16", gate_in_words(manifest.bf16))
    if (content := manifest.content) is not None:
        given = " or given" if content.given else ""
        table.add_row("contents", f"{content.feature} of {content.digest}{given}")
    table.add_section()
    for name, record in sorted(manifest.files.items()):
        table.add_row(name, f"{_size(record.size):>10}  sha-256 {record.sha256[:16]}…")
    console.print(table)


def _roles(schema: FeatureSchema) -> Iterator[tuple[Stored | Numeric, str]]:
    """Every feature once, with its roles."""
    for feature in schema.user:
        identity = ", identity" if feature.name == schema.user_identity else ""
        yield feature, f"user{identity}"
    yield from ((feature, "request") for feature in schema.request)
    for feature in schema.stored_item:
        roles = ["item"] if feature in schema.item else []
        yield feature, " and ".join(roles + ["context"] * (feature in schema.context))


def _training(bundle: Bundle) -> str:
    training = bundle.manifest.training
    if training.checkpoint is None:
        return "not trained: random weights"
    figures = ", ".join(
        f"{name} {value:.4f}"
        for name, value in training.metrics.items()
        if isinstance(value, float) and ("auc" in name or "logloss" in name)
    )
    return f"{training.checkpoint}" + (f" ({figures})" if figures else "")


def _kind(feature: Stored | Numeric) -> str:
    match feature:
        case Numeric():
            return "number"
        case Categorical():
            return f"categorical, {feature.vocabulary:,} values"
        case CategoricalList():
            return f"list of {feature.slots}, {feature.vocabulary:,} values"
        case Dense():
            return f"dense, {feature.size} × {feature.storage}"


def calibration_in_words(calibration: Calibration | None) -> str:
    if calibration is None:
        return "none: scores are the network's own"
    rate = calibration.negative_sampling_rate
    return (
        f"sigmoid({calibration.slope:.4f}·logit + {calibration.intercept:.4f}), folded in; fitted "
        f"on {calibration.rows:,} rows of {calibration.data}"
        + (f" with {rate:g} of the negatives" if rate < 1 else "")
        + f"; on {calibration.judged_rows:,} others ECE {calibration.ece_before:.4f} → "
        f"{calibration.ece_after:.4f}, logloss {calibration.logloss_before:.4f} → "
        f"{calibration.logloss_after:.4f}"
    )


def gate_in_words(gate: QuantisationGate | None) -> str:
    if gate is None:
        return "none"
    verdict = "passed" if gate.passed else "FORCED past its gate"
    return (
        f"{verdict} on {gate.data} ({gate.rows:,} rows): |ΔAUC| {gate.delta_auc:.2g}, Δlogloss "
        f"{gate.delta_logloss:.2g}, |Δp| {gate.mean_abs_delta_p:.2g} in the mean and "
        f"{gate.max_abs_delta_p:.2g} at worst, |Δlogit| {gate.logit_error_bound:.2g} at worst, "
        f"Kendall τ {gate.kendall_tau:.4f}"
    )


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
