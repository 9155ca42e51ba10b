"""What a run leaves behind can be read by what others read such files with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from pyarrow import parquet

from loadtest.analysis.statistics import percentile
from loadtest.experiments.stub_process import StubProcess
from loadtest.generator.runner import Load, Run, execute
from loadtest.generator.workload import Workload
from loadtest.report.exports import DIGITS, HIGHEST_US, LOWEST_US, write_columns, write_hdr_log


def test_hdr_logs_and_columns_hold_what_was_measured(
    quick_stub: StubProcess, tmp_path: Path
) -> None:
    workload = Workload(candidates="4", distinct=100, events=0.1)
    load = Load(quick_stub.url, rate=150, seconds=2.2, warmup=0.3, workload=workload, stages=True)
    with execute(load) as run:
        write_hdr_log(run, run.response(), tmp_path / "response.hlog")
        write_columns(run, tmp_path / "columns.parquet")
        _check_histogram(run, tmp_path / "response.hlog")
        _check_columns(run, tmp_path / "columns.parquet")


def _check_histogram(run: Run, path: Path) -> None:
    whole = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    reader = HistogramLogReader(str(path), whole)
    intervals = 0
    while reader.add_next_interval_histogram() is not None:
        intervals += 1
    reader.close()
    assert intervals >= 2
    assert whole.get_total_count() == run.count
    for q in (0.5, 0.99):
        exact = 1e6 * percentile(run.response(), q)
        assert whole.get_value_at_percentile(100 * q) == pytest.approx(exact, rel=2e-3)


def _check_columns(run: Run, path: Path) -> None:
    table = parquet.read_table(path)
    assert table.num_rows == run.columns.requests
    np.testing.assert_array_equal(table["scheduled_s"], run.columns.at)
    assert set(table["bucket"].to_pylist()) == {"ok"}
    assert set(table["kind"].to_pylist()) == {"score", "event"}
    assert sum(table["warmup"].to_pylist()) == run.first > 0
    versions = table["model_version"].to_pylist()
    assert set(versions) == {"stub-1", None}
    engine = np.array(table["stage_engine_ms"].to_pylist(), float)
    assert np.nanmedian(engine) == pytest.approx(5, rel=0.01)
