"""Writes the benchmark's tables and plot into a Markdown page, between two marker lines.

Each kind of processor has its own: what is fast on one is slow on another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from model_export.bench.labels import DRAWN, FIGURES, LATENCIES, RATES, figure
from model_export.bench.picture import axes, save
from model_export.bundle.errors import BundleError
from model_export.bundle.processor import Kind


def marks(kind: Kind) -> tuple[str, str]:
    """The lines around the section of a kind of processor."""
    return f"<!-- bench {kind}: begin -->", f"<!-- bench {kind}: end -->"


def around(page: Path, kind: Kind) -> tuple[str, str]:
    """Split the page at the kind's markers; a missing page starts empty.

    Raises BundleError for a page without markers, or one that cannot be read or written.
    """
    for place in (page.parent, page) if page.exists() else (page.parent,):  # the plot is beside it
        if not os.access(place, os.R_OK | os.W_OK):
            raise BundleError(f"{page}: cannot be written: no such folder, or no permission")
    begin, end = marks(kind)
    text = page.read_text("utf-8") if page.exists() else f"# Performance\n\n{begin}\n{end}\n"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise BundleError(f"{page}: holds no lines {begin} and {end} to write the figures between")
    return before, after


def write(result: dict[str, Any], page: Path) -> None:
    """Rewrite the section between the markers, and the plot beside the page."""
    kind = result["processor_kind"]
    before, after = around(page, kind)
    picture = page.with_name(f"{page.stem}-{kind}.svg")
    draw(result, picture)
    begin, end = marks(kind)
    block = [begin, "", *_block(result, picture.name), "", end]
    page.write_text(before + "\n".join(block) + after, "utf-8")


def _block(result: dict[str, Any], picture: str) -> list[str]:
    return [
        f"{result['subject']}, X = {result['network_width']}, {result['threads']} thread(s), "
        f"onnxruntime {result['onnxruntime']}, OpenVINO plugin {result['openvino']}, torch "
        f"{result['torch']}, on {result['processor']}; medians in milliseconds, measured "
        f"interleaved in one run of {result['took_s']:.0f} s.",
        "",
        f"![Latency against candidates, log-log]({picture})",
        "",
        *_cases(result["cases"]),
        "",
        *_rates(result),
        *(_bars(result["bars"]) if result["bars"] else ()),
        *_work(result["work"]),
        *_costs(result),
    ]


def _cases(cases: list[dict[str, Any]]) -> list[str]:
    heads = [f"{c['candidates']} × {c['history']}" for c in cases]
    lines = [f"| candidates × history | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, label in LATENCIES.items():
        lines.append(f"| {label} | " + " | ".join(_ms(c[name]) for c in cases) + " |")
    for name, (label, form) in FIGURES.items():
        lines.append(f"| {label} | " + " | ".join(figure(c[name], form) for c in cases) + " |")
    readings = [str(c["repeats"]["eager"]) for c in cases]
    lines.append(f"| readings behind the eager median | {' | '.join(readings)} |")
    readings = [str(c["repeats"]["folded_fp32"]) for c in cases]
    lines.append(f"| readings behind the folded fp32 median | {' | '.join(readings)} |")
    return lines


def _ms(value: float | None) -> str:
    """Format with three digits, without an exponent."""
    return figure(value, ".3g" if value is None or value < 100 else ",.0f")


def _rates(result: dict[str, Any]) -> list[str]:
    """What each mode reaches of the peak, at every list length of the first history."""
    first = result["cases"][0]["history"]
    cases = [c for c in result["cases"] if c["history"] == first]
    heads = " | ".join(f"{c['candidates']} × {c['history']}" for c in cases)
    lines = [f"| µs per candidate, GFLOP/s, share of the peak | {heads} |"]
    lines.append("|---" * (len(cases) + 1) + "|")
    for name, label in RATES.items():
        forms = {"us_per_candidate": ",.1f", "gflops": ",.0f", "share_of_peak": ".0%"}
        cells = (", ".join(figure(c[f"{name}_{n}"], f) for n, f in forms.items()) for c in cases)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    found = ", ".join(f"{name} {value:,.0f}" for name, value in result["peak_gflops"].items())
    return [*lines, "", f"The peak, by one large product in GFLOP/s: {found}.", ""]


def _bars(bars: list[dict[str, Any]]) -> list[str]:
    lines = ["| figure | candidates | history | measured | limit | met |", "|---" * 6 + "|"]
    for bar in bars:
        lines.append(
            f"| {bar['bar']} | {bar['candidates']} | {bar['history']} | {bar['value']:.4g} | "
            f"{bar['limit']} | {'yes' if bar['met'] else '**no**'} |"
        )
    return [*lines, ""]


def _work(work: dict[str, Any]) -> list[str]:
    each, size = work["multiply_adds_per_candidate"], work["weight_bytes"]
    return [
        f"Multiply-adds of a candidate against {work['history']} history items: "
        f"{each['published']:,} as published, {each['shared_user']:,} with the user's side shared, "
        f"{each['folded']:,} folded, {each['floor']:,} in the floor. Weights of the ranker: "
        f"{size['folded_fp32'] / 1e6:.1f} MB, with int8 products {size['folded_int8'] / 1e6:.1f} "
        "MB.",
        "",
    ]


def _costs(result: dict[str, Any]) -> list[str]:
    ranker, catalogue = result["ranker"], result["catalogue"]
    sizes = ", ".join(
        f"{items:,} items {ms:.2f} ms"
        for items, ms in zip(catalogue["items"], catalogue["ms"], strict=True)
    )
    return [
        f"At {ranker['candidates']} candidates: the graph of named functions "
        f"{ranker['named_functions_ms']:.2f} ms, the same graph flattened {ranker['flat_ms']:.2f} "
        f"ms ({ranker['named_over_flat']:.3f}×; load times {ranker['load_named_functions_ms']:.1f} "
        f"and {ranker['load_flat_ms']:.1f} ms). Without the attention among its outputs "
        f"{ranker['without_attention_ms']:.2f} ms ({ranker['unasked_explain']:.3f}×), with it "
        f"requested {ranker['explained_ms']:.2f} ms. Gathered from an item table of: {sizes}.",
    ]


def draw(result: dict[str, Any], file: Path) -> None:
    """Plot latency against candidates, log-log, floors dashed."""
    first = result["cases"][0]["history"]
    cases = [c for c in result["cases"] if c["history"] == first]
    plot = axes("candidates", "milliseconds", f"history of {first}, {result['threads']} thread(s)")
    for number, name in enumerate(DRAWN):
        points = [(c["candidates"], c[name]) for c in cases if c[name] is not None]
        if points:
            style = {"color": f"C{number}", "label": LATENCIES[name]}
            line = "o--" if name.startswith("floor") else "o-"
            plot.loglog(*zip(*points, strict=True), line, ms=3, **style)
    plot.legend(fontsize=7)
    plot.grid(which="both", alpha=0.2)
    save(plot, file)
