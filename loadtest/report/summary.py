"""Prints verdict and numbers of a run to the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest.analysis.results import reasons

COLOURS = {"pass": "green", "fail": "red", "undecided": "yellow", "invalid": "red"}
EXIT_CODES = {"pass": 0, "measured": 0, "fail": 1, "undecided": 1, "invalid": 2}


def headline(result: dict[str, Any]) -> list[str]:
    """Describe each verdict in a sentence; also the first lines of the report."""
    if result["verdict"] == "invalid":
        return [f"INVALID: {reason}" for reason in result["invalid_because"]]
    lines = [sentence(verdict) for verdict in result["verdicts"]]
    if wrong := result["buckets"]["wrong"]:
        lines.insert(0, f"FAIL: {wrong:,} wrong answers of {result['requests']:,}")
    elif not result["buckets"]["ok"]:
        lines.insert(0, f"FAIL: none of {result['requests']:,} requests was answered rightly")
    return lines or ["MEASURED, without a target (--slo p99=25ms)"]


def sentence(verdict: dict[str, Any]) -> str:
    """Describe a verdict: outcome, target, confidence and counts."""
    measured, target = verdict["measured_ms"], verdict["slo"].replace("=", " ≤ ")
    if verdict["outcome"] == "undecided" and measured is None:
        return (
            f"UNDECIDED: {target} requires {verdict['needed']:,} requests, "
            f"there were {verdict['samples']:,}"
        )
    value = "no answers" if measured is None else f"measured {measured:.2f} ms"
    counts = f"{value}; {verdict['over']:,} of {verdict['samples']:,} over"
    if verdict["outcome"] == "pass":
        return f"PASS: {target}, {confidence(verdict)} sure ({counts})"
    if verdict["outcome"] == "fail":
        return f"FAIL: {target} missed, {confidence(verdict)} sure ({counts})"
    return (
        f"UNDECIDED: {target} neither met nor missed with confidence ({counts}; "
        f"{verdict['needed']:,} requests with as many over would show it)"
    )


def confidence(verdict: dict[str, Any]) -> str:
    """Format a confidence, never rounded up to 100%."""
    percent = 100 * verdict["confidence"]
    return f"{percent:.2f}%" if percent < 99.995 else "over 99.99%"


def show(console: Console, result: dict[str, Any]) -> None:
    colour = COLOURS.get(result["verdict"], "cyan")
    for line in headline(result):
        console.print(f"[bold {colour}]{line}[/]")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("ms")
    names = list(result["latency_ms"]["corrected"])
    for name in names:
        table.add_column(name, justify="right")
    rows = {
        "response, from the schedule": result["latency_ms"]["corrected"],
        "uncorrected, from the send": result["latency_ms"]["uncorrected"],
        "send lag": result["clocks_ms"]["lag"],
        "connect": result["clocks_ms"]["connect"],
    }
    for title, values in rows.items():
        table.add_row(title, *(_number(values[name]) for name in names))
    console.print(table)
    if interval := result["intervals_ms"]["p99"]:
        console.print(f"p99 within {interval[0]:.2f} … {interval[1]:.2f} ms (95%, block bootstrap)")
    rate = result["rate"]
    console.print(
        f"{result['requests']:,} requests at {rate['scheduled_per_s']:.1f}/s "
        f"(sent {rate['achieved_per_s']:.1f}/s, goodput {rate['goodput_per_s']:.1f}/s): "
        + ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in result["buckets"].items() if v)
    )
    if result["reasons"]:
        console.print("reasons: " + reasons(result))
    candidates = result["candidates"]
    if candidates["unknown"]:
        share = candidates["unknown"] / candidates["asked"]
        console.print(
            f"{share:.1%} of the candidates are unknown to the service: do --items name its store?"
        )
    for line in (*cold_users(result), *features_given(result)):
        console.print(line)
    _show_oracle(console, result["oracle"])
    _show_stages(console, result["stages"])


def cold_users(result: dict[str, Any]) -> list[str]:
    """Describe how many answers were of cold users, and warn of the default users."""
    found = result["cold_users"]
    answers, cold = found["answers"], found["cold"]
    if not answers:
        return []
    lines = [f"cold users: {cold:,} of {answers:,} answers ({cold / answers:.1%})"]
    if found["default_users"] and 2 * cold > answers:
        lines.append(
            "warning: most users of this run are unknown to the service and were scored with an "
            "empty history; name those of its store: --users lmdb://… or redis://…"
        )
    return lines


def features_given(result: dict[str, Any]) -> list[str]:
    """Describe the request features sent, and what answers had to do without."""
    found, lines, oracle = result["features"], list[str](), result["oracle"] or {}
    if found is not None:
        lines.append("request features sent: " + _shares(found["given"], found["requests"]))
    for what, meaning in (("defaulted", "without a value"), ("ignored", "not the version's")):
        if counts := oracle.get(what):
            shares = _shares(counts, oracle["checked"])
            lines.append(f"features {meaning}, of the answers checked: {shares}")
    return lines


def _shares(counts: dict[str, int], total: int) -> str:
    return ", ".join(f"{name} {count / total:.1%}" for name, count in counts.items()) or "none"


def _show_oracle(console: Console, oracle: dict[str, Any] | None) -> None:
    if oracle is not None:
        console.print(
            f"scores checked {oracle['checked']:,}, wrong {oracle['wrong_scores']:,}"
            + (f" (degraded {oracle['degraded']:,})" if oracle["degraded"] else "")
            + f", mixed versions {oracle['mixed_versions']:,}"
            + f", worst error {oracle['worst_error']:.2g}"
            + (f", wrong features {oracle['wrong_features']:,}" if oracle["wrong_features"] else "")
            + (f", not checked {oracle['unchecked']:,}" if oracle["unchecked"] else "")
        )


def _show_stages(console: Console, stages: dict[str, Any] | None) -> None:
    if stages is not None:
        parts = stages["slowest_1_percent_ms"]
        console.print(
            f"the slowest 1% belong to [bold]{stages['owner_of_slowest']}[/]: "
            + ", ".join(f"{name} {value:.2f} ms" for name, value in parts.items())
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"
