"""Draws plots without a display; equal figures give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def axes(x: str, y: str, title: str) -> Any:
    """Make an empty plot, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    plot.set(xlabel=x, ylabel=y, title=title)
    return plot


def save(plot: Any, file: Path) -> None:
    """Save as SVG or PNG, by the file's suffix."""
    import matplotlib

    dateless = {"metadata": {"Date": None}} if file.suffix == ".svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "qin-serving"}):
        plot.figure.savefig(file, **dateless)
