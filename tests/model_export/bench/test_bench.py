"""The bench at sizes that take no time: its figures are whole, and its bars can be missed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from feature_store.schema import FeatureSchema
from model_export.__main__ import app
from model_export.bench import page, user
from model_export.bench import run as bench_run
from model_export.bench.bars import bars
from model_export.bench.floors import FLOOR_BF16, floors
from model_export.bench.graphs import FP32_OPENVINO, Folded, SharedUser, write_graphs
from model_export.bench.interleave import LEAST, ROUNDS, medians
from model_export.bench.peaks import PEAK_OF
from model_export.bench.request import ITEMS, Request, random_items
from model_export.bench.run import BF16, TIMED, run
from model_export.bench.subjects import published, random_weights, trained
from model_export.bench.unfolded import Published
from model_export.bench.work import work
from model_export.build import build
from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.processor import Kind, processor
from model_export.graphs.folded_network import FoldedNetwork
from model_export.quality.random_network import random_network
from tests.model_export.schemas import (
    LEVELS,
    LEVELS_SIZES,
    SMALL,
    SMALL_SIZES,
    USER_ONLY,
    WITHOUT_IDENTITY,
)
from training.qin import QIN


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    seen: list[tuple[str, int, int]] = []
    figures = run(
        random_weights(SMALL, SMALL_SIZES),
        candidates=[3, 512],
        history=[5, 20],
        seconds=0.01,
        announce=lambda *step: seen.append(step),
    )
    assert [step[1:] for step in seen] == [(n, 4) for n in range(5)]
    return figures


def test_every_variant_of_every_case_is_timed(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result
    plugin = openvino.is_usable()
    has_bf16 = plugin and openvino.has_bf16()
    absent = {FP32_OPENVINO: plugin, BF16: has_bf16, FLOOR_BF16: has_bf16}
    elsewhere = {name for name, has in absent.items() if has}
    cases = [(case["candidates"], case["history"]) for case in result["cases"]]
    assert cases == [(3, 5), (512, 5), (512, 20)]
    for case in result["cases"]:
        assert all(case[f"{name}_ms"] > 0 for name in TIMED)
        assert set(case["repeats"]) == {*TIMED, *elsewhere}
        assert all((case[f"{name}_ms"] is not None) is has for name, has in absent.items())
        for name in PEAK_OF:
            if case[f"{name}_ms"] is not None:
                us = case[f"{name}_us_per_candidate"]
                assert us == pytest.approx(1e3 * case[f"{name}_ms"] / case["candidates"])
                assert case[f"{name}_gflops"] > 0 < case[f"{name}_share_of_peak"]
        assert case["eager_over_folded_fp32"] == case["eager_ms"] / case["folded_fp32_ms"]
        assert 0 < case["max_abs_error_fp32"] < 2e-6 < case["max_abs_error_int8"] < 0.5
        assert 0.8 < case["rank_correlation_int8"] <= 1
    assert {"fp32", "int8", "torch_fp32"} <= set(result["peak_gflops"])
    assert result["processor_kind"] == processor().kind
    assert result["ranker"]["named_over_flat"] > 0
    assert result["catalogue"]["items"] == [10_000, 100_000]


def test_every_variant_answers_as_the_network(tmp_path: Path) -> None:
    for schema in (SMALL, WITHOUT_IDENTITY, LEVELS, USER_ONLY):
        sizes = LEVELS_SIZES if schema is LEVELS else SMALL_SIZES
        network = random_network(schema, sizes, seed=4)
        random = np.random.default_rng(1)
        rows = random_items(schema, random)
        request = Request.random(7, schema.history_length, random)
        unfolded, folder = Published(network, rows), write_graphs(network, tmp_path)
        exact = unfolded.in_float64(request)
        folded = Folded(folder, 1, rows)
        items, history = folded.prepare(request)
        answers = {
            "eager": unfolded.eager(request)()[0].numpy(),
            "plain": unfolded.exported(request, tmp_path / "plain.onnx", 1)()[0][0],
            "shared": SharedUser(folder, 1).run(
                items, folded.items.vector[request.history], folded.user
            )()[0][0],
            "folded": 1 / (1 + np.exp(-folded.logits(items, history, "fp32"))),
        }
        for name, answer in answers.items():
            np.testing.assert_allclose(answer, exact, atol=2e-6, err_msg=name)


def test_long_histories_and_lists_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_export.bench.unfolded.POSITIONS", 12)
    network = random_network(SMALL, SMALL_SIZES)
    rows = random_items(SMALL, np.random.default_rng(2))
    unfolded = Published(network, rows)
    request = Request(np.arange(8, dtype=np.int32), np.arange(5, dtype=np.int32))
    parts = unfolded.eager(request)()
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    assert np.concatenate(parts) == pytest.approx(unfolded.in_float64(request), abs=2e-6)


def test_the_floor_is_the_large_products_and_nothing_else(network: QIN) -> None:
    graphs = {g.name: g.model().graph for g in floors(FoldedNetwork.of(network))}
    operators = {name: [node.op_type for node in graph.node] for name, graph in graphs.items()}
    assert operators == {
        "floor_fp32": ["MatMul"] * 2,
        "floor_fp32_conv": ["Conv"] * 2,
        "floor_int8": ["DynamicQuantizeMatMul"] * 2,
    }


def test_the_work_is_counted_for_one_more_candidate(network: QIN) -> None:
    counted = work(network, history=10)
    D, A, X, L, R, layers = 24, 24, network.schema.network_width, 10, 2, 3
    each = counted["multiply_adds_per_candidate"]
    assert each["floor"] == (layers - 1) * X * X
    assert each["folded"] == each["floor"] + L * (2 * D + X) + X
    assert each["shared_user"] == 2 * D * A + 2 * L * A + layers * R * X * X + X
    assert each["published"] == each["shared_user"] + 2 * L * D * A
    assert counted["weight_bytes"]["folded_int8"] < counted["weight_bytes"]["folded_fp32"]


def test_what_is_slow_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    monkeypatch.setattr("model_export.bench.interleave.time.perf_counter", lambda: clock[0])

    def takes(seconds: float) -> Callable[[], None]:
        def run() -> None:
            order.append(seconds)
            clock[0] += seconds

        return run

    runs = {str(seconds): takes(seconds) for seconds in (0.001, 0.125, 0.9, 3.0)}
    readings = medians(runs, seconds=2.0)
    assert [readings[name].repeats for name in runs] == [ROUNDS, 16, LEAST, 1]
    assert [readings[name].ms for name in runs] == pytest.approx([1, 125, 900, 3000])
    assert order[:4] == [0.001, 0.125, 0.9, 3.0]  # to warm up
    quick = {tuple(order[at : at + 2]) for at in range(14, 40, 2)}  # rounds of the two left
    assert quick == {(0.001, 0.125), (0.125, 0.001)}  # each has its own order


def case(candidates: int, history: int = 64, **figures: float) -> dict[str, Any]:
    met = {
        "eager_over_folded_fp32": 40.0,
        "plain_onnx_over_folded_fp32": 30.0,
        "folded_fp32_over_floor_fp32": 1.05,
        "folded_int8_over_folded_fp32": 0.4,
        "max_abs_error_fp32": 5e-7,
        "folded_fp32_ms": candidates / 32,
    }
    return {"candidates": candidates, "history": history} | met | figures


def test_bars_are_met_and_missed_one_by_one() -> None:
    cases = [case(64), case(512), case(2048), case(512, history=1024, folded_fp32_ms=20.0)]
    judged = bars(cases, "other")
    assert len(judged) == 8
    assert all(bar["met"] for bar in judged)
    cases[1] = case(512, folded_fp32_over_floor_fp32=1.11, eager_over_folded_fp32=34.9)
    cases[2] = case(2048, folded_fp32_ms=80.0)
    cases[3] = case(512, history=1024, folded_fp32_ms=30.0)
    missed = [bar["bar"] for bar in bars(cases, "other") if not bar["met"]]
    assert missed == [
        "eager / folded fp32",
        "folded fp32 / floor fp32",
        "folded fp32 per candidate / at 512",
        "folded fp32 / at a history of 64",
    ]
    assert bars([case(8)], "other") == []


def test_each_kind_of_processor_has_its_own_bars() -> None:
    figures = {
        "folded_bf16_over_floor_fp32": 0.3,
        "auto_fp32_over_floor_fp32": 1.1,
        "best_low_over_floor_int8": 1.4,
        "folded_int8_over_floor_int8": 1.6,
    }
    cases = [case(64, **figures), case(512, **figures)]
    kinds: tuple[Kind, ...] = ("amx", "vnni", "other")
    found = {kind: bars(cases, kind) for kind in kinds}
    assert [b["bar"] for b in found["amx"] if not b["met"]] == ["folded bf16 / floor fp32"]
    assert [b["bar"] for b in found["vnni"] if not b["met"]] == ["folded int8 / floor int8"]
    assert all(b["met"] for b in found["other"])
    assert "eager / folded fp32" not in [b["bar"] for b in found["amx"]]


@pytest.mark.parametrize("met", [True, False])
def test_bench_ends_by_its_bars(
    met: bool, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = {"bar": "b", "candidates": 8, "history": 2, "value": 1.0, "limit": "≤ 2", "met": met}
    monkeypatch.setattr(bench_run, "run", lambda *_, **__: result | {"bars": [bar]})
    done = CliRunner().invoke(app, ["bench"])
    assert done.exit_code == (0 if met else 1)
    assert "peak, one large product, GFLOP/s: fp32" in done.stdout
    as_json = CliRunner().invoke(app, ["bench", "--json"])
    assert as_json.exit_code == done.exit_code
    assert json.loads(as_json.stdout)["bars"] == [bar]


def test_a_bundle_is_measured_by_its_own_graphs(bundle: Bundle) -> None:
    figures = run(published(bundle), candidates=[4], history=[6], seconds=0.01)
    (only,) = figures["cases"]
    assert figures["subject"] == "bundle small-1"
    assert only["folded_fp32_ms"] > 0
    assert only["max_abs_error_fp32"] == bundle.manifest.parity.max_abs_error
    assert only["folded_int8_ms"] is only["max_abs_error_int8"] is None
    assert only["folded_int8_over_folded_fp32"] is None


def test_a_trained_network_takes_any_history(network: QIN, tmp_path: Path) -> None:
    subject = trained(random_network(SMALL, SMALL_SIZES).train(), "mine")
    assert not subject.network(40).training
    assert subject.network(40).schema.history_length == 40
    (only,) = run(subject, candidates=[4], history=[40], seconds=0.01)["cases"]
    assert only["max_abs_error_fp32"] < 2e-6
    assert math.isfinite(only["eager_ms"])
    built = build(random_network(SMALL, SMALL_SIZES), tmp_path)
    assert built.schema.history_length == 12


def test_the_page_keeps_what_was_written_by_hand(result: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    result = result | {"processor_kind": "vnni", "bars": bars(result["cases"], "vnni")}
    page.write(result, file)
    assert file.read_text().startswith("# Performance\n")
    file.write_text("By hand.\n\n" + file.read_text() + "\nBelow.\n")
    page.write(result | {"subject": "another network"}, file)
    text = file.read_text()
    assert text.startswith("By hand.\n")
    assert text.endswith("\nBelow.\n")
    assert text.count(page.marks("vnni")[0]) == text.count("another network") == 1
    assert "| folded fp32 / floor fp32 | 512 | 5 |" in text
    assert "| folded, fp32 |" in text.partition("share of the peak")[2]
    picture = (tmp_path / "performance-vnni.svg").read_text()
    assert picture.count("<svg") == 1
    page.write(result, file)
    assert (tmp_path / "performance-vnni.svg").read_text() == picture
    with pytest.raises(BundleError, match="<!-- bench amx: begin -->"):
        page.write(result | {"processor_kind": "amx"}, file)


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# Something else\n")
    with pytest.raises(BundleError, match=r"page\.md: holds no lines <!-- bench other: begin -->"):
        page.around(file, "other")


def test_requests_draw_from_all_items() -> None:
    request = Request.random(20_000, 5, np.random.default_rng(0))
    assert len(np.unique(request.candidates)) > 0.9 * ITEMS
    assert [len(part.candidates) for part in request.parts(8000)] == [8000, 8000, 4000]


def test_user_features_are_measured_against_context_features_of_the_same_width() -> None:
    result = user.run(64, 5, 0.01, base=SMALL, sizes=SMALL_SIZES)
    assert result["network_width"] == 256 + 2 * SMALL.item_vector_width
    assert result["user_multiply_adds"] > result["context_multiply_adds"]
    for name in ("context", "context_int8", "user", "user_int8", "user_tower"):
        assert result[f"{name}_ms"] > 0
    work, time = result["bars"]
    assert work["value"] == result["user_multiply_adds"] / result["context_multiply_adds"]
    assert work["met"]
    assert time["value"] == result["user_ms"] / result["context_ms"]


def test_at_the_papers_sizes_user_features_cost_one_hundredth_more_at_most() -> None:
    schemas = user._schemas(FeatureSchema.microlens(), 64)
    assert {schema.network_width for schema in schemas.values()} == {1024}
    work = [user._work(random_network(schemas[room]), 64) for room in user.ROOMS]
    assert work[1] <= 1.01 * work[0]


@pytest.mark.parametrize("met", [True, False])
def test_bench_user_ends_by_its_bars(met: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = user.run(8, 2, 0.001, base=SMALL, sizes=SMALL_SIZES)
    figures["bars"] = [bar | {"met": met} for bar in figures["bars"]]
    monkeypatch.setattr(user, "run", lambda *_, **__: figures)
    done = CliRunner().invoke(app, ["bench-user"])
    assert done.exit_code == (0 if met else 1)
    assert ("met" if met else "MISSED") in done.stdout
    assert "user tower, once per request" in done.stdout
    as_json = CliRunner().invoke(app, ["bench-user", "--json"])
    assert json.loads(as_json.stdout) == figures
