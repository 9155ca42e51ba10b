"""Publishes networks of every conditioning. ``python -m tests.model_export.measure_parity --json``.

Every second network's batch-norm statistics are not those of its inputs, with growing spread and
depth; every eighth is chosen because float32 PyTorch is 1e-5 from float64. Into one folded tensor
of each, one fold and the fold of its calibration a defect of 1e-7 is planted in turn, which must be
refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any
from unittest import mock

import numpy as np
import orjson
import typer
from numpy.typing import NDArray

from model_export.build import build
from model_export.bundle.errors import ParityError
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import Calibration
from model_export.bundle.runtime import FoldedModel
from model_export.graphs import folds as fold
from model_export.graphs.folded_network import FoldedNetwork
from model_export.quality.golden_cases import golden_answers, network_answer, network_items
from model_export.quality.parity import check_folds
from model_export.quality.random_network import ill_conditioned, random_network
from model_export.quality.reference import rounding
from tests.model_export.quality import defects
from tests.model_export.schemas import ALL, SMALL
from training.qin import QIN, QINSizes

CALIBRATION = Calibration(
    slope=0.7,
    intercept=-0.3,
    negative_sampling_rate=1.0,
    data="none",
    rows=0,
    judged_rows=0,
    ece_before=0.0,
    ece_after=0.0,
    logloss_before=0.0,
    logloss_after=0.0,
)


def rounds_beyond(first_seed: int = 0, tolerance: float = 1e-5) -> QIN:
    """The first ill-conditioned network whose float32 PyTorch is ``tolerance`` from float64."""
    sizes = QINSizes(attention_width=24, layers=5, rows=3)
    for seed in range(first_seed, first_seed + 200):
        network = ill_conditioned(SMALL, sizes, seed)
        golden = golden_answers(network)
        if np.abs(float32_answers(network, golden) - golden.probability).max() >= tolerance:
            return network
    raise AssertionError("no seed rounds so much")


def float32_answers(network: QIN, golden: Golden) -> NDArray[np.floating]:
    """(ΣC,) probabilities of PyTorch in float32."""
    items = network_items(network.schema, golden.items)
    answers = [
        network_answer(
            network, items, r.history, r.candidates, r.context, user=r.user, features=r.features
        )
        for r in golden.requests()
    ]
    return np.concatenate(answers)


def network_of(number: int) -> QIN:
    if number % 8 == 3:
        return rounds_beyond(25 * (number // 8))
    schema = ALL[number // 2 % len(ALL)]
    sizes = QINSizes(
        attention_width=24,
        layers=1 + number // 8 % 5,
        rows=1 + number % 4,
        output_bias=number % 3 == 0,
    )
    if number % 2 == 0:
        return random_network(schema, sizes, number)
    return ill_conditioned(schema, sizes, number, spread=(1 + number // 8 % 4) / 4)


def measured(networks: int) -> dict[str, Any]:
    published = refused = beyond = planted = passed = 0
    errors, folds, ratios, reasons = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(networks):
            network = network_of(number)
            try:
                bundle = build(network, Path(folder), version=f"v{number}")
            except ParityError as error:
                refused += 1
                reasons.append(f"{number}: {error}")
            else:
                published += 1
                errors.append(bundle.manifest.parity.max_abs_error)
                folds.append(bundle.manifest.parity.fold_error or 0.0)
                beyond += errors[-1] > 1e-5
                ratios.append(_ratio(FoldedModel(bundle), network))
            golden = golden_answers(network, calibration=CALIBRATION)
            check_folds(_folded(network), golden, f"v{number}")
            for name, check in _defective(network, golden, number):
                planted += 1
                try:
                    check()
                except ParityError:
                    continue
                passed += 1
                reasons.append(f"{number}: {name} with a defect")
    return {
        "networks": networks,
        "published": published,
        "refused": refused,
        "beyond_1e_5": int(beyond),
        "worst_error": max(errors),
        "worst_fold_error": max(folds),
        "worst_error_by_estimate": max(ratios),
        "defects": planted,
        "defects_published": passed,
        "reasons": reasons,
    }


def _folded(network: QIN) -> FoldedNetwork:
    return FoldedNetwork.of(network).calibrated(CALIBRATION.slope, CALIBRATION.intercept)


def _defective(
    network: QIN, golden: Golden, number: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    """One folded tensor, one fold and the calibration's: a name, and what must be refused."""
    tensors = list(defects.tensors(_folded(network)))
    tensor, defective = tensors[number % len(tensors)]
    yield tensor, lambda: check_folds(defective, golden, "v")
    schema = network.schema
    applied = {
        "_join": len(schema.context) > 1,  # of two context features
        "output_bias": network.sizes.output_bias,
        "user_row": bool(schema.user or schema.request),
        "standardised": any(feature.kind == "numeric" for feature in schema.request),
    }
    folds = [(module, name) for module, name in defects.FOLDS if applied.get(name, True)]
    for module, name in (folds[number % len(folds)], (fold, "calibration")):

        def check(module: ModuleType = module, name: str = name) -> None:
            with mock.patch.object(module, name, defects.of_a_fold(module, name)):
                check_folds(_folded(network), golden, "v")

        yield name, check


def _ratio(model: FoldedModel, network: QIN) -> float:
    """Worst error by its rounding estimate, of the answers beyond a quarter of 1e-5."""
    golden = golden_answers(network)
    estimate = rounding(FoldedNetwork.of(network), golden, golden.probability.astype(np.float64))
    found = replace(golden, bound=np.maximum(estimate, 2.5e-6)).compare(model)
    return found.error / found.bound


def main(
    networks: Annotated[int, typer.Option(help="How many to publish.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    result = measured(networks)
    typer.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2) if as_json else str(result))
    if result["refused"] or result["defects_published"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
