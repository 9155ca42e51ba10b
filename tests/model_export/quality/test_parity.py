"""Publishing judges the folds in float64, and the float32 graphs by what float32 can give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from model_export.__main__ import app
from model_export.build import Int8, build
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, GateError, ParityError
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import TOLERANCE
from model_export.bundle.verify import _misfits, verify
from model_export.graphs.folded_network import FoldedNetwork
from model_export.quality import parity
from model_export.quality.golden_cases import golden_answers
from model_export.quality.parity import check_folds
from model_export.quality.random_network import ill_conditioned, random_network
from model_export.quality.random_rows import random_held_out
from model_export.quality.reference import exact_answers
from model_export.quality.reference import rounding as rounding_of
from tests.model_export.measure_parity import (
    CALIBRATION,
    float32_answers,
    measured,
    rounds_beyond,
)
from tests.model_export.quality import defects
from tests.model_export.schemas import (
    ALL,
    LEVELS,
    LEVELS_SIZES,
    MANY_CONTEXTS,
    SMALL,
    SMALL_SIZES,
    USER_ONLY,
    WIDE,
)
from training.qin import QIN, QINSizes

FORMAT_1 = Path(__file__).parents[1] / "golden" / "format-1"


def _named(value: object) -> str:
    return value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else str(value)


@pytest.mark.parametrize("schema", ALL, ids=lambda schema: schema.name)
def test_the_folds_are_exact_in_float64(schema) -> None:
    for network in (
        random_network(schema, SMALL_SIZES),
        ill_conditioned(schema, SMALL_SIZES),
        random_network(schema, LEVELS_SIZES),  # with a bias in W_o
    ):
        golden = golden_answers(network)
        assert golden.probability.dtype == np.float64
        answers = exact_answers(FoldedNetwork.of(network), golden)
        assert np.abs(answers - golden.probability).max() < 1e-12


@pytest.mark.parametrize(("module", "name"), defects.FOLDS, ids=_named)
def test_a_defect_of_1e_7_in_a_fold_is_not_published(
    module: ModuleType,
    name: str,
    levels: QIN,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, defects.of_a_fold(module, name))
    with pytest.raises(ParityError, match=r"is not published: .*float64.*worst case: \w.*"):
        build(levels, tmp_path, version="v", calibration=CALIBRATION, accept_rounding=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("module", "name"), defects.BLOCKS, ids=_named)
def test_a_defect_in_a_block_of_the_graphs_is_not_published(
    module: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1.0 if "int8" in name else defects.BLOCK_SIZE  # int8 is judged by its own gate
    monkeypatch.setattr(module, name, defects.of_a_block(module, name, size))
    # Candidates as pixels, and as rows; with users, without and with a bias in W_o: not each of
    # them has every block.
    kinds = (
        (SMALL, SMALL_SIZES),
        (MANY_CONTEXTS, SMALL_SIZES),
        (USER_ONLY, SMALL_SIZES),
        (LEVELS, LEVELS_SIZES),
    )
    expected = GateError if "int8" in name else ParityError
    assert any(is_refused(random_network(*kind), tmp_path, expected) for kind in kinds)


def is_refused(network: QIN, folder: Path, expected: type[Exception]) -> bool:
    try:
        build(network, folder, int8=Int8(random_held_out(network)))
    except (ParityError, GateError) as error:
        return isinstance(error, expected)
    return False


@pytest.mark.parametrize("kind", ["network", "levels"])
def test_a_defect_of_1e_7_in_any_folded_tensor_is_refused(
    kind: str, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(kind)
    golden, honest = golden_answers(network), FoldedNetwork.of(network)
    check_folds(honest, golden, "v")
    passed = []
    for name, defective in defects.tensors(honest):
        try:
            check_folds(defective, golden, "v")
        except ParityError:
            continue
        passed.append(name)
    assert passed == []


def test_a_network_that_float32_rounds_is_published_and_verified(tmp_path: Path) -> None:
    """Whose graphs' answers are more than 1e-5 from float64, as PyTorch's are: which network's are
    depends on the processor."""
    networks = (rounds_beyond(25 * number) for number in range(8))
    bundles = (build(each, tmp_path, version=f"{n}") for n, each in enumerate(networks))
    bundle = next(each for each in bundles if each.manifest.parity.max_abs_error > TOLERANCE)
    assert bundle.manifest.format == 2
    assert bundle.manifest.parity.fold_error is not None
    assert bundle.manifest.parity.fold_error < 1e-11
    assert not bundle.manifest.parity.rounding_accepted
    assert bundle.golden().bound.max() == bundle.manifest.parity.tolerance
    verify(bundle.path)


@pytest.fixture(scope="module")
def wide() -> QIN:
    """3 layers of X = 400, R = 3, logits up to 1.2e5: PyTorch's float32 is 7e-5 from float64."""
    sizes = QINSizes(attention_width=400, layers=3, rows=3)
    return ill_conditioned(WIDE, sizes, seed=48)


@pytest.fixture(scope="module")
def wide_bundle(wide: QIN, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(wide, tmp_path_factory.mktemp("wide"))


def test_a_wide_network_of_random_initialisation_is_published_within_what_float32_gives_it(
    wide: QIN, wide_bundle: Bundle
) -> None:
    golden = golden_answers(wide)
    assert np.abs(float32_answers(wide, golden) - golden.probability).max() > TOLERANCE
    bounds, found = wide_bundle.golden().bound, wide_bundle.manifest.parity
    estimate = rounding_of(FoldedNetwork.of(wide), golden, golden.probability)
    np.testing.assert_array_equal(
        bounds, np.clip(parity.MULTIPLE * estimate, TOLERANCE, parity.MOST_ROUNDING)
    )
    assert TOLERANCE < found.tolerance == bounds.max() < parity.MOST_ROUNDING
    assert found.max_abs_error <= found.tolerance
    assert found.fold_error is not None
    assert found.fold_error < 1e-11
    assert not found.rounding_accepted
    verify(wide_bundle.path)


def test_a_wide_network_is_refused_with_half_of_what_it_needs(
    wide: QIN, wide_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "TOLERANCE", wide_bundle.manifest.parity.max_abs_error / 2)
    monkeypatch.setattr(parity, "MULTIPLE", 0.0)
    with pytest.raises(ParityError, match=r"in float32 differs from .*--accept-rounding"):
        build(wide, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_rounding_beyond_the_bounds_is_published_only_if_accepted(
    network: QIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "TOLERANCE", 0.0)
    monkeypatch.setattr(parity, "MULTIPLE", 0.0)
    with pytest.raises(ParityError, match=r"float32 differs .*publish it with --accept-rounding"):
        build(network, tmp_path)
    bundle = build(network, tmp_path, accept_rounding=True)
    found = bundle.manifest.parity
    assert found.rounding_accepted
    assert found.tolerance == 2 * found.max_abs_error
    verify(bundle.path)
    shown = CliRunner().invoke(app, ["info", str(bundle.path)])
    assert "ROUNDING ACCEPTED" in shown.output


def test_bounds_wider_than_the_manifest_says_are_refused(bundle: Bundle) -> None:
    golden = replace(bundle.golden(), bound=bundle.golden().bound * 2)
    assert [fault for fault in _misfits(bundle, golden) if "parity.tolerance" in fault]


def test_a_bundle_of_format_1_is_verified_with_its_tolerance() -> None:
    bundle, difference = verify(FORMAT_1)
    assert bundle.manifest.format == 1
    assert bundle.manifest.parity.fold_error is None
    assert set(bundle.golden().bound) == {TOLERANCE}
    assert difference.bound == TOLERANCE
    shown = CliRunner().invoke(app, ["info", str(FORMAT_1)])
    assert "format 1" in shown.output


def test_networks_of_every_conditioning_are_judged_rightly() -> None:
    result = measured(12)
    assert result["networks"] == 12
    assert result["refused"] == 0
    assert result["defects_published"] == 0
    assert result["beyond_1e_5"] > 0


def test_an_infinite_bound_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    golden = replace(bundle.golden(), bound=np.full(len(bundle.golden().bound), np.inf))
    golden.save(tmp_path / "golden.npz")
    with pytest.raises(BundleError, match="bound: negative or not finite"):
        Golden.load(tmp_path / "golden.npz")
