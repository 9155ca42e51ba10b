"""Writes the report of an ablation: verdicts, conditions and figures in Markdown, and pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import orjson
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from text.ablate.recipe import KEPT_IN
from text.ablate.run import Outcome
from text.ablate.verdict import Spread
from text.evaluate.report import COLOURS
from training.output import writing

PAGE = "ablation.md"


def write(folder: Path, outcomes: Sequence[Outcome], content: Mapping[str, Any]) -> None:
    """Write ``ablation.md``, ``ablation.json`` (recipe, claims), and a picture of each claim."""
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        (folder / KEPT_IN).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        for outcome in outcomes:
            (folder / f"{outcome.claim.name}.png").write_bytes(picture(outcome))
        (folder / PAGE).write_text(markdown(outcomes), "utf-8")


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return a section for each claim: the verdict, conditions by seed, figures with spread."""
    minutes = sum(result.seconds for outcome in outcomes for result in outcome.results) / 60
    lines = ["# Ablation", "", f"Training and evaluation took {minutes:.1f} minutes.", ""]
    for outcome in outcomes:
        lines += [*_section(outcome), ""]
    return "\n".join(lines)


def _section(outcome: Outcome) -> list[str]:
    claim, verdict = outcome.claim, outcome.verdict
    seeds = list(verdict.conditions[0].values)
    heads = [f"seed {seed}" for seed in seeds]
    lines = [
        f"## {claim.name}: {'holds' if verdict.holds else 'does not hold'}",
        "",
        f"{claim.statement} The claim {verdict.text}.",
        "",
        f"![Figures of each arm and seed]({claim.name}.png)",
        "",
        f"| condition | {' | '.join(heads)} | held |",
        f"|---|{'---|' * len(heads)}---|",
    ]
    for each in verdict.conditions:
        cells = [f"{value:+.3f}{'' if each.holds(s) else ' ✗'}" for s, value in each.values.items()]
        lines.append(f"| {each.name} | {' | '.join(cells)} | {each.held} of {len(seeds)} |")
    lines += [
        "",
        f"| arm | figure | {' | '.join(heads)} | mean | standard deviation | least … most |",
        f"|---|---|{'---|' * len(heads)}---|---|---|",
    ]
    for arm, spreads in outcome.spreads.items():
        by_seed = outcome.figures[arm]
        for name, spread in spreads.items():
            cells = [_cell(by_seed.get(seed, {}).get(name)) for seed in seeds]
            summary = f"{spread.mean:.3f} | {spread.deviation:.3f} | "
            summary += f"{spread.least:.3f} … {spread.most:.3f}"
            lines.append(f"| {arm} | {name} | {' | '.join(cells)} | {summary} |")
    return lines


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def picture(outcome: Outcome) -> bytes:
    """Draw lines over the length of texts, or bars: means of each arm, and a dot for each seed."""
    spreads = outcome.spreads
    by_length = outcome.claim.name == "length"
    names = list(dict.fromkeys(name for own in spreads.values() for name in own))
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(_panel(name), []).append(name)
    figure, grid = plt.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 3.4), layout="constrained", squeeze=False
    )
    for axes, (title, own) in zip(grid[0], panels.items(), strict=True):
        if by_length:
            _lines(axes, own, outcome)
        else:
            _bars(axes, own, outcome)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()


def _panel(name: str) -> str:
    for start in ("tokens a word", "accuracy", "nDCG@10"):
        if name.startswith(start):
            return start
    return "ρ"


def _bars(axes: Axes, names: Sequence[str], outcome: Outcome) -> None:
    arms = list(outcome.spreads)
    width = 0.8 / len(arms)
    for number, arm in enumerate(arms):
        places = np.arange(len(names)) + (number - (len(arms) - 1) / 2) * width
        means = [outcome.spreads[arm][name].mean for name in names]
        axes.bar(places, means, width * 0.92, color=COLOURS[number], label=arm)
        for own in outcome.figures[arm].values():
            axes.plot(places, [own[name] for name in names], "o", color="black", markersize=2.5)
    axes.set_xticks(np.arange(len(names)), [name.rpartition(" ")[2] for name in names])


def _lines(axes: Axes, names: Sequence[str], outcome: Outcome) -> None:
    lengths = [int(name.rpartition(" ")[2]) for name in names]
    for number, (arm, spreads) in enumerate(outcome.spreads.items()):
        if names[0] not in spreads:
            continue
        axes.plot(lengths, _means(spreads, names), color=COLOURS[number], label=arm)
        for own in outcome.figures[arm].values():
            values = [own[name] for name in names]
            axes.plot(lengths, values, "o", color=COLOURS[number], markersize=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens")


def _means(spreads: Mapping[str, Spread], names: Sequence[str]) -> list[float]:
    return [spreads[name].mean for name in names]
