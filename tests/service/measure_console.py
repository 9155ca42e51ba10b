"""What the console costs: its first view, and open pages on the event loop.

``python -m tests.service.measure_console --json``. An open page's cost is processor time of the
service's event loop (its main thread, by the scheduler's count in nanoseconds) beyond that without
a page, a share of one core, while nothing else is asked: in turns of a few seconds, so that what
changes slowly is the same for all. The first view is measured in a real Chromium where there is one
(the extra ``browser``), with an empty cache, on loopback.
"""

from __future__ import annotations

import select
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from math import sqrt
from pathlib import Path
from typing import Any

import orjson
import typer

from tests.service.console.browser import PATIENCE_MS, chromium
from tests.service.console.conftest import ANN, QUIET, Served, browser_of, log_in
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import serving

BARS = {"bytes": 150_000, "ms": 300, "twenty_share": 0.02, "one_share": 0.002}
PAGES = ("/console", "/console/versions", "/console/try")
OPEN = (0, 1, 20)  # pages, in turns
LEAST = 500  # bytes of a message
SETTLE_S = 0.5  # after pages were opened or closed


def main(
    seconds: float = typer.Option(3, help="Length of each turn."),
    rounds: int = typer.Option(12, help="Turns with each number of open pages."),
    loads: int = typer.Option(9, help="Loads of each page."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Measure and compare with the bars."""
    with tempfile.TemporaryDirectory(prefix="console-") as folder:
        world, _ = two_versions(Path(folder))
        tokens = {"QIN_ADMIN_TOKEN": f"ann:{ANN}"}
        with serving(world.models, world.store, **tokens, **QUIET) as service:
            served = Served(service, world)
            found: dict[str, Any] = {"open_pages": costs(served, seconds, rounds)}
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
        "one_share": costs["1"]["share"] <= BARS["one_share"],
        "twenty_share": costs["20"]["share"] <= BARS["twenty_share"],
        "bytes": all(one["bytes"] <= BARS["bytes"] for one in views.values()),
        "ms": all(one["ms"] <= BARS["ms"] for one in views.values()),
    }
    return [name for name, holds in held.items() if not holds]


def costs(served: Served, seconds: float, rounds: int) -> dict[str, Any]:
    """By the number of open pages: share of a core beyond that of none in the same round, its mean,
    standard error and median."""
    cookie = cookie_of(served)
    shares: dict[int, list[float]] = {count: [] for count in OPEN}
    for turn in range(rounds):
        for count in OPEN[turn % len(OPEN) :] + OPEN[: turn % len(OPEN)]:
            shares[count].append(cost(served, cookie, count, seconds))
    found: dict[str, Any] = {"none": round(statistics.mean(shares[0]), 6)}
    for count in OPEN[1:]:
        beyond = [one - none for one, none in zip(shares[count], shares[0], strict=True)]
        found[str(count)] = {
            "share": round(statistics.mean(beyond), 6),
            "standard_error": round(statistics.stdev(beyond) / sqrt(rounds), 6),
            "median": round(statistics.median(beyond), 6),
        }
    return found


def cost(served: Served, cookie: str, count: int, seconds: float) -> float:
    """Processor time per second of the event loop with so many open pages."""
    with ExitStack() as stack:
        pages = [stack.enter_context(opened(served, cookie)) for _ in range(count)]
        read(pages, SETTLE_S)
        before, began = spent(served), time.monotonic()
        received = read(pages, seconds)
        share = (spent(served) - before) / (time.monotonic() - began)
    assert received >= LEAST * (seconds - 1) * count, "messages have come meanwhile"
    return share


def cookie_of(served: Served) -> str:
    with browser_of(served) as client:
        assert log_in(client).status_code == 303
        ((name, value),) = client.cookies.items()
        return f"{name}={value}"


def opened(served: Served, cookie: str) -> socket.socket:
    """The live stream of a page."""
    connection = socket.create_connection(("127.0.0.1", served.service.admin_port))
    host = served.origin.removeprefix("http://")
    head = f"GET /console/stream HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def read(pages: list[socket.socket], seconds: float) -> int:
    """Read what comes, for so long. Returns its bytes."""
    deadline, received = time.monotonic() + seconds, 0
    while (left := deadline - time.monotonic()) > 0:
        for page in select.select(pages, [], [], left)[0]:
            piece = page.recv(65_536)
            assert piece, "the stream goes on"
            received += len(piece)
    return received


def spent(served: Served) -> float:
    """Processor time of the main thread so far, in seconds."""
    pid = served.service.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


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
