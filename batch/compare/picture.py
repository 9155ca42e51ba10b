"""Draws a comparison: calibration curves of both versions, and how scores changed. One SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from batch.compare.comparison import WIDEST, Comparison

SIDE, GAP, MARGIN, HEADER = 320, 70, 50, 60
COLOURS = {"a": "#0b62a4", "b": "#c2410c"}
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def picture(found: Comparison) -> str:
    """Return the SVG: calibration where there are labels, and the histogram of B − A."""
    panels = [_changes(found)]
    if found.labelled and found.whole.a.rows:
        panels.insert(0, _calibration(found))
    width = 2 * MARGIN + len(panels) * SIDE + (len(panels) - 1) * GAP
    height = HEADER + SIDE + MARGIN
    title = f"A: {found.a.recipe['version']}, B: {found.b.recipe['version']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT} '
        f'role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({MARGIN + number * (SIDE + GAP)} {HEADER})">')
        parts += [*panel, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _calibration(found: Comparison) -> list[str]:
    curves = {"a": found.whole.a.points(), "b": found.whole.b.points()}
    most = max([0.01, *(max(p, c) for points in curves.values() for p, c, _ in points)])
    lines = [*_frame("click rate by mean score", "0", f"{most:.2g}")]
    lines.append(f'<line x1="0" y1="{SIDE}" x2="{SIDE}" y2="0" stroke="#bbb"/>')
    for number, (name, points) in enumerate(curves.items()):
        places = [(SIDE * p / most, SIDE - SIDE * c / most) for p, c, _ in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        colour = COLOURS[name]
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        lines.append(f'<text x="8" y="{18 + 16 * number}" fill="{colour}">{name.upper()}</text>')
    return lines


def _changes(found: Comparison) -> list[str]:
    counts: Sequence[int] = found.changes.tolist()
    heights = np.log1p(counts) / max(1e-9, float(np.log1p(max(counts, default=0))))
    lines = list(_frame("B − A of scores, candidates (log)", f"{-WIDEST:g}", f"{WIDEST:g}"))
    step = SIDE / len(counts)
    for number, height in enumerate(heights.tolist()):
        if height:
            lines.append(
                f'<rect x="{number * step:.1f}" y="{SIDE * (1 - height):.1f}" '
                f'width="{step - 1:.1f}" height="{SIDE * height:.1f}" fill="#64748b"/>'
            )
    return lines


def _frame(title: str, low: str, high: str) -> Iterator[str]:
    yield f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#888"/>'
    yield f'<text x="0" y="-8">{escape(title)}</text>'
    yield f'<text x="0" y="{SIDE + 18}">{low}</text>'
    yield f'<text x="{SIDE}" y="{SIDE + 18}" text-anchor="end">{high}</text>'
