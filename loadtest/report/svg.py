"""Draws line charts as inline SVG: two scales, a grid, lines, marks and levels.

Colours and fonts are CSS classes of the page (light, dark). Each chart is drawn in two widths, so
that text keeps its size; the page shows one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTHS = {"narrow": 300, "wide": 760}
HEIGHT = 280
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 42


@dataclass(frozen=True)
class Scale:
    """Maps values to a share 0 … 1 of an axis. ``ticks``: (value, label); default: round values."""

    low: float
    high: float
    log: bool = False
    title: str = ""
    ticks: Sequence[tuple[float, str]] = ()

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(values, np.float64)
        low, high = self.low, self.high
        if self.log:
            array = np.log(np.maximum(array, 1e-12))
            low, high = math.log(low), math.log(high)
        return (array - low) / ((high - low) or 1.0)

    def marked(self) -> list[tuple[float, str]]:
        if self.ticks:
            return list(self.ticks)
        values = log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)
        return [(value, f"{value:,.6g}") for value in values]


@dataclass(frozen=True)
class Line:
    """A line, broken at NaN, with points if ``dots``. ``style``: a CSS class, a to e."""

    name: str
    style: str
    x: ArrayLike
    y: ArrayLike
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """``levels``: horizontal (value, label); ``marks``: vertical (value, label)."""

    x: Scale
    y: Scale
    lines: Sequence[Line]
    levels: Sequence[tuple[float, str]] = ()
    marks: Sequence[tuple[float, str]] = ()
    label: str = ""
    height: int = field(default=HEIGHT)

    def draw(self) -> str:
        """Draw legend and both widths, as HTML."""
        keys = dict.fromkeys((line.style, line.name) for line in self.lines)
        legend = "".join(f'<span class="key {style}">{escape(name)}</span>' for style, name in keys)
        drawn = "".join(
            f'<svg class="{name}" viewBox="0 0 {width} {self.height}" role="img" '
            f'aria-label="{escape(self.label)}">{"".join(self._parts(width))}</svg>'
            for name, width in WIDTHS.items()
        )
        return f'<div class="legend">{legend}</div>{drawn}'

    def _parts(self, width: int) -> Iterator[str]:
        right, bottom = width - RIGHT, self.height - BOTTOM

        def across(values: ArrayLike) -> NDArray[np.float64]:
            return LEFT + self.x(values) * (right - LEFT)

        def up(values: ArrayLike) -> NDArray[np.float64]:
            return bottom - self.y(values) * (bottom - TOP)

        yield from self._grid(across, up, width, right, bottom)
        for value, label in self.marks:
            at = float(across(value))
            title = f"<title>{escape(label)}</title>"
            yield f'<path class="mark" d="M{at:.1f} {TOP}V{bottom}">{title}</path>'
        for line in self.lines:
            x, y = across(line.x), np.clip(up(line.y), TOP - 4, bottom)
            if np.sum(~np.isnan(x + y)) > 1:
                yield f'<path class="line {line.style}" d="{_path(x, y)}"/>'
            if line.dots:
                for a, b in zip(x.tolist(), y.tolist(), strict=True):
                    if b == b:
                        yield f'<circle class="dot {line.style}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
        for value, label in self.levels:
            at = float(up(value))
            if TOP - 1 <= at <= bottom + 1:
                yield f'<path class="level" d="M{LEFT} {at:.1f}H{right}"/>'
                yield f'<text class="level" x="{right}" y="{at - 5:.1f}">{escape(label)}</text>'

    def _grid(self, across, up, width: int, right: int, bottom: int) -> Iterator[str]:  # type: ignore[no-untyped-def]
        for value, label in self.y.marked():
            at = float(up(value))
            yield f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>'
            yield f'<text class="y" x="{LEFT - 6}" y="{at + 4:.1f}">{label}</text>'
        last = -1e9
        for value, label in self.x.marked():
            at = float(across(value))
            if at - last >= 8 * len(label) + 6:  # labels never touch
                last = at
                yield f'<path class="tick" d="M{at:.1f} {bottom}v5"/>'
                yield f'<text class="x" x="{at:.1f}" y="{bottom + 18}">{label}</text>'
        yield f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>'
        middle, title = (LEFT + right) / 2, escape(self.x.title)
        yield f'<text class="title" x="{middle:.0f}" y="{self.height - 6}">{title}</text>'


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    parts, pen = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if b != b or a != a:
            pen = "M"
            continue
        parts.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L"
    return "".join(parts)


def linear_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Choose about ``about`` round values between."""
    span = (high - low) or 1.0
    rough = span / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Choose 1, 2, 5 of each decade, or only decades if there are more than four."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
