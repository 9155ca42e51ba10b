"""The room's pictures: drawn without a display, the same bytes for the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def axes(x: str, y: str, title: str) -> Any:
    """An empty plot. A figure of its own, not pyplot's: nothing global, nothing to close."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    plot.set(xlabel=x, ylabel=y, title=title)
    return plot


def save(plot: Any, file: Path) -> None:
    """As SVG or PNG, by the file's name."""
    import matplotlib

    dateless = {"metadata": {"Date": None}} if file.suffix == ".svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "qin-serving"}):
        plot.figure.savefig(file, **dateless)
