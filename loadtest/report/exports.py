"""Exports a run for other tools: HDR histogram logs and a parquet file of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter
from numpy.typing import NDArray

from loadtest.generator.columns import Bucket, Reason

if TYPE_CHECKING:
    from loadtest.generator.runner import Run

LOWEST_US, HIGHEST_US, DIGITS = 1, 3_600_000_000, 3
INTERVAL = 1.0  # seconds per line of the log


def write_hdr_log(run: Run, clock: NDArray[np.float64], path: Path) -> None:
    """Write a histogram per second of ``clock``, in microseconds, as an HdrHistogram log."""
    at = run.columns.at[run.measured]
    begin = 1e3 * run.started.timestamp()
    with path.open("w", encoding="utf-8") as file:
        writer = HistogramLogWriter(file)
        writer.output_comment("[values in microseconds, the longest of an interval in ms]")
        writer.output_log_format_version()
        writer.output_base_time(begin)
        # The library's output_start_time raises for any date
        writer.output_comment(f"[StartTime: {begin / 1e3:f} (seconds since epoch), {run.started}]")
        writer.output_legend()
        for second in range(int(at[-1] / INTERVAL) + 1):
            first, last = np.searchsorted(at, [second * INTERVAL, (second + 1) * INTERVAL])
            if not np.isnan(clock[first:last]).all():
                histogram = histogram_of(clock[first:last])
                histogram.set_start_time_stamp(begin + 1e3 * second * INTERVAL)
                histogram.set_end_time_stamp(begin + 1e3 * (second + 1) * INTERVAL)
                writer.output_interval_histogram(histogram, max_value_unit_ratio=1e3)


def histogram_of(seconds: NDArray[np.float64]) -> HdrHistogram:
    """Build a histogram from a microsecond to an hour, with three significant digits."""
    histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    micros = np.clip(np.rint(1e6 * seconds[~np.isnan(seconds)]), LOWEST_US, HIGHEST_US)
    for value, count in zip(*np.unique(micros.astype(np.int64), return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    return histogram


def write_columns(run: Run, path: Path) -> None:
    """Write a row per scheduled request; clocks in seconds from the start of the run."""
    import pyarrow as pa
    from pyarrow import parquet

    columns, bank = run.columns, run.bank
    table = {
        "scheduled_s": columns.at,
        "attended_s": columns.attended,
        "sent_s": columns.sent,
        "done_s": columns.done,
        "warmup": np.arange(columns.requests) < run.first,
        "kind": pa.DictionaryArray.from_arrays(
            bank.kind[columns.entry].astype(np.int8), ["score", "event"]
        ),
        "entry": columns.entry,
        "bucket": _names(columns.bucket, [kind.name.lower() for kind in Bucket]),
        "reason": _names(columns.reason, [reason.name.lower() for reason in Reason]),
        "status": columns.status,
        "opened_connection": columns.opened.astype(bool),
        "model_version": pa.array(
            [run.versions[number] if number >= 0 else None for number in columns.version.tolist()],
            pa.string(),
        ).dictionary_encode(),
    }
    for place, name in enumerate(run.stage_names):
        table[f"stage_{name}_ms"] = columns.stages[:, place]
    parquet.write_table(pa.table(table), path, compression="zstd")


def _names(values: NDArray[np.uint8], names: list[str]) -> object:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(values.astype(np.int8), names)
