"""Writes the report of an evaluation: a table of every figure in Markdown, and pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import orjson
from matplotlib import pyplot as plt

from text.evaluate.tasks import UNDEFINED, Result
from training.output import writing

COLOURS = ("#1f5fbf", "#d9730d", "#9aa0a6", "#3b8f5a", "#8e5bb5")
PICTURE = "evaluation.png"


def write(folder: Path, results: Sequence[Result]) -> None:
    """Write ``evaluation.md``, ``evaluation.json`` and ``evaluation.png`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = orjson.dumps([asdict(result) for result in results], option=orjson.OPT_INDENT_2)
    with writing(folder):
        (folder / PICTURE).write_bytes(picture(results))
        (folder / "evaluation.json").write_bytes(figures + b"\n")
        (folder / "evaluation.md").write_text(markdown(results), "utf-8")


def markdown(results: Sequence[Result]) -> str:
    """Return a row for each task, languages and metric, a column for each candidate."""
    names = list(dict.fromkeys(result.candidate for result in results))
    rows: dict[tuple[str, str, str, int, int], dict[str, float]] = {}
    for result in results:
        key = (result.task, result.languages, result.metric, result.items, result.pool)
        rows.setdefault(key, {})[result.candidate] = result.value
    lines = [
        "# Evaluation",
        "",
        f"![All figures by task]({PICTURE})",
        "",
        f"| task | languages | metric | items | pool | {' | '.join(names)} |",
        f"|---|---|---|---|---|{'---|' * len(names)}",
    ]
    for (task, langs, metric, items, pool), values in rows.items():
        best = max((value for value in values.values() if value == value), default=math.nan)
        cells = [_cell(values.get(name), best) for name in names]
        lines.append(
            f"| {task} | {langs} | {metric} | {items:,} | {pool or '–'} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(value: float | None, best: float) -> str:
    if value is None:
        return "–"
    if math.isnan(value):
        return UNDEFINED
    return f"**{value:.3f}**" if value == best else f"{value:.3f}"


def picture(results: Sequence[Result]) -> bytes:
    """Draw a panel for each task and metric: bars by languages, a colour for each candidate."""
    names = list(dict.fromkeys(result.candidate for result in results))
    panels = list(dict.fromkeys((result.task, result.metric) for result in results))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.6 * columns, 2.9 * lines), layout="constrained", squeeze=False
    )
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes, (task, metric) in zip(grid.ravel(), panels, strict=False):
        own = [r for r in results if (r.task, r.metric) == (task, metric)]
        langs = list(dict.fromkeys(result.languages for result in own))
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            values = {r.languages: r.value for r in own if r.candidate == name}
            heights = [values.get(lang, 0.0) for lang in langs]
            axes.bar(
                np.arange(len(langs)) + (number - (len(names) - 1) / 2) * width,
                heights,
                width * 0.92,
                color=COLOURS[number % len(COLOURS)],
                label=name,
            )
        axes.set_xticks(np.arange(len(langs)), langs)
        axes.set(title=task, ylabel=metric)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()
