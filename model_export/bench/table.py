"""Prints the benchmark's figures on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from model_export.bench.labels import FIGURES, LATENCIES, RATES, figure


def show(result: dict[str, Any], console: Console) -> None:
    """Print milliseconds and ratios by case, then the limits."""
    cases = result["cases"]
    title = f"{result['subject']}: median milliseconds, {result['threads']} thread(s)"
    table = Table(title=title, title_justify="left")
    table.add_column("candidates × history")
    for case in cases:
        table.add_column(f"{case['candidates']} × {case['history']}", justify="right")
    for name, label in LATENCIES.items():
        table.add_row(label, *(figure(case[name], ".3f") for case in cases))
    table.add_section()
    for name, (label, form) in FIGURES.items():
        table.add_row(label, *(figure(case[name], form) for case in cases))
    console.print(table)
    _show_rates(result, console)
    for bar in result["bars"]:
        where = f"{bar['candidates']} candidates, history of {bar['history']}"
        verdict = "met" if bar["met"] else "MISSED"
        console.print(
            f"{verdict:>6}  {bar['bar']}, {where}: {bar['value']:.4g} (limit {bar['limit']})"
        )
    console.print(f"took {result['took_s']:.0f} s")


def _show_rates(result: dict[str, Any], console: Console) -> None:
    """Print what each mode reaches at the longest list, and the peaks that it is held against."""
    case = max(result["cases"], key=lambda case: (case["candidates"], -case["history"]))
    title = f"{case['candidates']} candidates, history of {case['history']}: {result['processor']}"
    table = Table(title=title, title_justify="left")
    for column in ("mode", "ms", "µs per candidate", "GFLOP/s", "of the peak"):
        table.add_column(column, justify="left" if column == "mode" else "right")
    for name, label in RATES.items():
        table.add_row(
            label,
            figure(case[f"{name}_ms"], ".3f"),
            figure(case[f"{name}_us_per_candidate"], ".1f"),
            figure(case[f"{name}_gflops"], ",.0f"),
            figure(case[f"{name}_share_of_peak"], ".0%"),
        )
    console.print(table)
    found = ", ".join(f"{name} {value:,.0f}" for name, value in result["peak_gflops"].items())
    console.print(f"peak, one large product, GFLOP/s: {found}")


def show_top_k(result: dict[str, Any], console: Console) -> None:
    """Print speed at full size, then differences over many lists."""
    speed, exactness = result["speed"], result["exactness"]
    console.print(
        f"{result['subject']}: the {result['k']} best of {result['candidates']}, history of "
        f"{result['history']}, {result['threads']} thread(s)"
    )
    console.print(
        f"all in fp32 {speed['fp32_ms']:.2f} ms, {result['precision']} with "
        f"{speed['rescored_median']:g} re-scored {speed['top_k_ms']:.2f} ms: "
        f"{speed['speedup']:.2f}× as fast; {speed['different']} of {speed['lists']:,} lists differ"
    )
    console.print(
        f"narrow network (X = {exactness['network_width']}): {exactness['different']} of "
        f"{exactness['lists']:,} lists differ"
    )


def show_user(result: dict[str, Any], console: Console) -> None:
    """Print times and work of both networks, then the limits."""
    console.print(
        f"{result['candidates']} candidates, history of {result['history']}, X = "
        f"{result['network_width']}, {result['threads']} thread(s)"
    )
    for name, label in (("context", "context features"), ("user", "user and request features")):
        console.print(
            f"{label}: ranker {result[f'{name}_ms']:.3f} ms (int8 {result[f'{name}_int8_ms']:.3f}),"
            f" {result[f'{name}_multiply_adds']:,} multiply-adds per candidate"
        )
    console.print(f"user tower, once per request: {result['user_tower_ms']:.3f} ms")
    for bar in result["bars"]:
        verdict = "met" if bar["met"] else "MISSED"
        console.print(f"{verdict:>6}  {bar['bar']}: {bar['value']:.4f} (limit {bar['limit']})")
