"""Writes the reports of search and comparison, and the sections of swap and soak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest.experiments.compare import failures, sentences
from loadtest.report import figures
from loadtest.report.page import Row, Section, milliseconds, write_page

if TYPE_CHECKING:
    from loadtest.generator.runner import Run

Json = dict[str, Any]


def write_search(path: Path, result: Json) -> None:
    points, knee, limit = result["points"], result["knee_per_s"], result["limit_ms"]
    names = ("p50", "p99", "p99.9")
    at_twice = points[-1]
    write_page(
        path,
        title=f"Search on {result['settings']['url']}",
        verdict="pass",
        lines=[
            f"KNEE: {knee:,.1f} requests/s",
            f"The largest rate that meets {result['slo']}, confirmed {result['confirmations']} "
            f"times; {result['first_miss_per_s']:,.1f}/s did not.",
        ],
        cards=[
            (f"{knee:,.0f}/s", "knee"),
            (f"{result['goodput_at_knee_per_s']:,.0f}/s", "goodput at the knee"),
            (f"{at_twice['goodput_per_s']:,.0f}/s", "goodput at twice the knee"),
        ],
        sections=[
            Section("Latency against rate (ms)", figures.knee(points, knee, limit, result["slo"])),
            Section("Goodput against rate (per second)", figures.goodput(points, knee)),
            Section(
                "Points",
                columns=["rate/s", *names, "answered/s", "goodput/s", "not ok"],
                rows=[
                    Row(
                        [
                            f"{point['rate']:,.1f}",
                            *(milliseconds(point["latency_ms"][name], unit="") for name in names),
                            f"{point['answered_per_s']:,.1f}",
                            f"{point['goodput_per_s']:,.1f}",
                            f"{point['requests'] - point['buckets']['ok']:,}",
                        ]
                    )
                    for point in points
                ],
            ),
        ],
        result=result,
    )


def write_comparison(path: Path, result: Json) -> None:
    lines = [*sentences(result["effects"]), *failures(result["rounds"])]
    shown = [metric for metric, effect in result["effects"].items() if effect["shown"]]
    write_page(
        path,
        title=f"A {result['settings']['url']} against B {result['b']['url']}",
        verdict="pass" if shown else "undecided",
        lines=[f"Effect shown at {', '.join(shown)}" if shown else "No effect shown", *lines],
        cards=[
            (f"{effect['b_over_a']['ratio']:.3f}", f"{metric}, B over A")
            for metric, effect in result["effects"].items()
        ],
        sections=[
            Section(
                "Ratios with 95% intervals",
                figures.intervals(result["effects"]),
                notes=[
                    f"{len(result['rounds'])} rounds of {' '.join(result['order'])}; A' is A "
                    "again: its ratio is the noise."
                ],
            ),
            Section(
                "Segments (ms)",
                columns=["round", "arm", "p50", "p99", "not ok"],
                rows=[
                    Row(
                        [
                            str(number),
                            segment["arm"],
                            milliseconds(segment["latency_ms"]["p50"], unit=""),
                            milliseconds(segment["latency_ms"]["p99"], unit=""),
                            f"{sum(segment['buckets'].values()) - segment['buckets']['ok']:,}",
                        ]
                    )
                    for number, segments in enumerate(result["rounds"], start=1)
                    for segment in segments
                ],
            ),
        ],
        result=result,
    )


def swap_sentence(found: Json) -> str:
    """Summarise errors and latency of swaps in one line."""
    first = found["activation_to_first_answer_ms"]
    waited = "–" if first is None else f"{first['p50']:.1f} ms, at worst {first['max']:.1f} ms"
    return (
        f"{found['swaps']:,} swaps: errors {found['errors']:,}, mixed versions "
        f"{_count(found['mixed_versions'])}, wrong scores {_count(found['wrong_scores'])}; p99 "
        f"{found['p99_around_swaps_ms']:.2f} ms around them, {found['p99_without_ms']:.2f} ms "
        f"without ({found['p99_ratio']:.2f}×); activation to first answer {waited}"
    )


def failed_swaps(found: Json) -> list[str]:
    """Say why activations failed, of the first few."""
    return [f"Failed: {line}" for line in found["refused_activations"][:5]]


def swap_section(run: Run, found: Json) -> Section:
    """Build the section with swaps marked over latency per 100 ms."""
    marks = [(swap["asked_s"], f"to {swap['version']}") for swap in found["each"]]
    notes = [swap_sentence(found)]
    if found["memory_ratio"] is not None:
        notes.append(
            f"Resident memory {found['resident_mib_after_5']:.0f} MiB after 5 swaps, "
            f"{found['resident_mib_after_all']:.0f} MiB after all."
        )
    notes += failed_swaps(found)
    return Section(
        "Swaps over latency (ms)", figures.timeline(run, bin_s=0.1, marks=marks), notes=notes
    )


def soak_sentence(found: Json) -> str:
    if "growth" not in found:
        return f"SOAK: {found['because']}"
    verdict = "steady" if found["passed"] else f"NOT steady ({found['because']})"
    return (
        f"memory and descriptors {verdict}: {found['resident_mib_before']:.1f} → "
        f"{found['resident_mib_after']:.1f} MiB ({found['growth']:+.1%}), "
        f"{found['more_descriptors']:+.0f} descriptors"
    )


def soak_section(found: Json) -> Section:
    samples: Sequence[Json] = found["samples"]
    figure = figures.memory(samples) if samples else ""
    return Section("Memory of the service (MiB)", figure, notes=[soak_sentence(found)])


def _count(value: int | None) -> str:
    return "not checked" if value is None else f"{value:,}"
