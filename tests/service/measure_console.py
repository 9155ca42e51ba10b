"""What the console costs: its first view, and open pages on the event loop.

``python -m tests.service.measure_console --json``. The time is the service's processor time beyond
that without a page, a share of one core, while nothing else is asked. The first view is measured in
a real Chromium where there is one (the extra ``browser``), with an empty cache, on loopback.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import typer

from tests.service.console.browser import PATIENCE_MS, chromium
from tests.service.console.conftest import ANN, QUIET, Served, browser_of, log_in
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import serving

BARS = {"bytes": 150_000, "ms": 300, "twenty_share": 0.02, "one_share": 0.002}
PAGES = ("/console", "/console/versions", "/console/try")


def main(
    seconds: float = typer.Option(20, help="Length of each measurement."),
    loads: int = typer.Option(9, help="Loads of each page."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Measure and compare with the bars."""
    with tempfile.TemporaryDirectory(prefix="console-") as folder:
        world, _ = two_versions(Path(folder))
        tokens = {"QIN_ADMIN_TOKEN": f"ann:{ANN}"}
        with serving(world.models, world.store, **tokens, **QUIET) as service:
            served = Served(service, world)
            found: dict[str, Any] = {"open_pages": costs(served, seconds)}
            found["first_view"] = views(served, loads)
    found["bars"] = BARS
    found["missed"] = missed(found)
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print(found)
    raise typer.Exit(1 if found["missed"] else 0)


def missed(found: dict[str, Any]) -> list[str]:
    """Bars that were missed."""
    costs, views = found["open_pages"], found["first_view"] or {}
    held = {
        "one_share": costs["1"] <= BARS["one_share"],
        "twenty_share": costs["20"] <= BARS["twenty_share"],
        "bytes": all(one["bytes"] <= BARS["bytes"] for one in views.values()),
        "ms": all(one["ms"] <= BARS["ms"] for one in views.values()),
    }
    return [name for name, holds in held.items() if not holds]


def costs(served: Served, seconds: float) -> dict[str, float]:
    """Share of a core by the number of open pages, without that of none."""
    before, one, twenty, after = (cost(served, count, seconds) for count in (0, 1, 20, 0))
    none = (before + after) / 2
    found = {"1": round(one - none, 5), "20": round(twenty - none, 5)}
    return {"none": round(none, 5), "noise": round(abs(before - after), 5), **found}


def cost(served: Served, count: int, seconds: float) -> float:
    process = psutil.Process(served.service.process.pid)
    with ExitStack() as stack:
        readers = [stack.enter_context(reading(served, stack)) for _ in range(count)]
        time.sleep(1.5)
        before, began = _spent(process), time.monotonic()
        deadline = began + seconds
        while time.monotonic() < deadline:
            for lines in readers:
                next(lines, None)
            if not readers:
                time.sleep(0.5)
        return (_spent(process) - before) / (time.monotonic() - began)


def reading(served: Served, stack: ExitStack) -> Any:
    client = stack.enter_context(browser_of(served))
    assert log_in(client).status_code == 303

    class Lines(ExitStack):
        def __enter__(self) -> Any:
            answer: httpx.Response = self.enter_context(client.stream("GET", "/console/stream"))
            return (line for line in answer.iter_lines() if line.startswith("data"))

    return Lines()


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def views(served: Served, loads: int) -> dict[str, Any] | None:
    """Bytes, and the median of milliseconds to the graphs of a page that is loaded first."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium() is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        found = {path: view(browser, served, path, loads) for path in PAGES}
        browser.close()
    return found


def view(browser: Any, served: Served, path: str, loads: int) -> dict[str, float]:
    sizes, times = list[int](), list[float]()
    for _ in range(loads):
        context = browser.new_context()  # nothing cached
        context.set_default_timeout(PATIENCE_MS)
        login = f"{served.origin}/console/login"
        context.request.post(login, form={"token": ANN}, max_redirects=0)
        page = context.new_page()
        page.goto(f"{served.origin}{path}", wait_until="load")
        page.wait_for_timeout(300)
        timing = page.evaluate(
            """() => {
              const all = [performance.getEntriesByType("navigation")[0],
                ...performance.getEntriesByType("resource")];
              const shown = performance.getEntriesByName("shown")[0];
              return {bytes: all.reduce((sum, one) => sum + one.transferSize, 0),
                ms: shown ? shown.startTime : all[0].loadEventEnd};
            }"""
        )
        sizes.append(timing["bytes"])
        times.append(timing["ms"])
        context.close()
    return {
        "bytes": max(sizes),
        "ms": round(statistics.median(times), 1),
        "slowest_ms": round(max(times), 1),
    }


if __name__ == "__main__":
    typer.run(main)
