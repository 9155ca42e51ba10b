"""Renders reports as self-contained HTML pages: verdict, charts, tables, environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from loadtest.report import figures
from loadtest.report.summary import cold_users, features_given, headline

if TYPE_CHECKING:
    from loadtest.generator.runner import Run

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    cells: Sequence[str]
    bar: float | None = None  # percent of the widest
    owner: bool = False


@dataclass(frozen=True)
class Section:
    title: str
    figure: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()


def write_page(
    path: Path,
    *,
    title: str,
    verdict: str,
    lines: Sequence[str],
    cards: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    result: Json,
) -> None:
    """Write a page; command line and environment are taken from ``result``."""
    text = resources.files("loadtest.report").joinpath("report.html.j2").read_text("utf-8")
    page = jinja2.Environment(autoescape=True).from_string(text)
    path.write_text(
        page.render(
            title=title,
            verdict=verdict,
            headline=lines,
            subtitle=f"{title} · {result['started'].replace('T', ' ').replace('+00:00', ' UTC')}",
            cards=cards,
            sections=sections,
            command=result["command"],
            facts=list(_facts(result)),
        ),
        "utf-8",
    )


def write_run(path: Path, run: Run, result: Json, extra: Sequence[Section] = ()) -> None:
    """Write the report of a run; ``extra`` sections follow the timeline."""
    write_page(
        path,
        title=f"Load test of {run.load.url}",
        verdict=result["verdict"],
        lines=headline(result),
        cards=list(cards(result)),
        sections=[*run_sections(run, result, extra)],
        result=result,
    )


def cards(result: Json) -> Iterator[tuple[str, str]]:
    corrected = result["latency_ms"]["corrected"]
    for name in ("p50", "p99", "p99.9"):
        yield milliseconds(corrected[name]), f"{name}, from the schedule"
    yield f"{result['rate']['achieved_per_s']:,.0f}/s", "requests sent"
    yield f"{result['rate']['goodput_per_s']:,.0f}/s", "answered right and in time"
    bad = result["requests"] - result["buckets"]["ok"]
    yield f"{bad:,}", f"of {result['requests']:,} not answered right"


def run_sections(run: Run, result: Json, extra: Sequence[Section] = ()) -> Iterator[Section]:
    verdicts = result["verdicts"]
    levels = [(verdict["limit_ms"], verdict["slo"]) for verdict in verdicts]
    yield Section(
        "Latency by percentile (ms)",
        figures.distribution(run, verdicts),
        notes=_interval_notes(result),
    )
    yield Section("Latency over time (ms)", figures.timeline(run, levels=levels))
    yield from extra
    if ended := figures.endings(run):
        yield Section("How requests ended, per second", ended)
    if result["stages"]:
        yield stage_section(result["stages"])
    yield clock_section(result)
    yield bucket_section(result)


def stage_section(stages: Json) -> Section:
    slow, mean = stages["slowest_1_percent_ms"], stages["mean_ms"]
    widest = max(*slow.values(), 1e-9)
    off = stages["unaccounted_share"]
    notes = [
        f"The slowest 1% took {stages['slowest_1_percent_from_ms']:.2f} ms or more; most of it "
        f"went to {stages['owner_of_slowest']}.",
        "waiting: before the send. network: not measured by the server.",
    ]
    if off is not None:
        notes.append(f"The server's stages differ from its own total by {100 * off:.1f}%.")
    return Section(
        "Where the time goes (ms)",
        columns=["stage", "all", "slowest 1%", ""],
        rows=[
            Row(
                [name, f"{mean[name]:.2f}", f"{slow[name]:.2f}"],
                bar=100 * slow[name] / widest,
                owner=name == stages["owner_of_slowest"],
            )
            for name in slow
        ],
        notes=notes,
    )


def clock_section(result: Json) -> Section:
    names = list(result["clocks_ms"]["lag"])
    rows = [
        Row([clock, *(milliseconds(values[name], unit="") for name in names)])
        for clock, values in result["clocks_ms"].items()
    ]
    if result["shed_ms"]["max"] is not None:
        rows.append(
            Row(["refusals", *(milliseconds(result["shed_ms"][n], unit="") for n in names)])
        )
    return Section(
        "Four clocks (ms)",
        columns=["", *names],
        rows=rows,
        notes=["response = lag + connect + service, counted from the scheduled send."],
    )


def bucket_section(result: Json) -> Section:
    rows = [Row([k.replace("_", " "), f"{v:,}"]) for k, v in result["buckets"].items()]
    notes = [f"{k.replace('_', ' ')}: {v:,}" for k, v in result["reasons"].items()]
    notes += [f"version {name}: {count:,} answers" for name, count in result["versions"].items()]
    lines = (*cold_users(result), *features_given(result))
    notes += [f"{line[0].upper()}{line[1:]}." for line in lines]
    if oracle := result["oracle"]:
        notes.append(
            f"Scores checked against the offline answer: {oracle['checked']:,}, wrong "
            f"{oracle['wrong_scores']:,}, of them of mixed versions {oracle['mixed_versions']:,}, "
            f"worst error {oracle['worst_error']:.2g}."
        )
    return Section("Every scheduled request", columns=["ended", "requests"], rows=rows, notes=notes)


def _interval_notes(result: Json) -> list[str]:
    parts = [
        f"{name} {low:.2f} … {high:.2f}"
        for name, interval in result["intervals_ms"].items()
        if interval is not None
        for low, high in [interval]
    ]
    return [f"95% intervals by block bootstrap: {', '.join(parts)} ms."] if parts else []


def _facts(result: Json) -> Iterator[tuple[str, str]]:
    machine, settings = result["environment"], result["settings"]
    workload = settings["workload"]
    yield "Machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    yield "System", f"{machine['system']}, Python {machine['python']}"
    yield "Load average", ", ".join(f"{value:.2f}" for value in machine["load_average"])
    yield "Arrivals", f"{settings['arrivals']}, seed {settings['seed']}"
    yield "Candidates", f"{workload['candidates']} a request"
    yield "Users", f"{workload['users']}, Zipf {workload['user_zipf']:g}"
    yield "Items", f"{workload['items']}, Zipf {workload['item_zipf']:g}"
    cores = settings["generator_cores"]
    yield "Generators", f"{settings['generators']}" if not cores else f"on cores {list(cores)}"


def milliseconds(value: float | None, unit: str = " ms") -> str:
    if value is None:
        return "–"
    return f"{value:.2f}{unit}" if value < 100 else f"{value:,.0f}{unit}"
