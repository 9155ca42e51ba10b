"""A page in a real headless browser: what it measures there, and a picture of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import orjson

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROBE = """
<script>
addEventListener("load", () => {
  const shown = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width);
  const boxes = shown.map(svg => [...svg.querySelectorAll("text.x, text.y")].map(
    text => text.getBoundingClientRect()));
  const overlapping = boxes.flatMap(all => all.flatMap((a, i) => all.slice(i + 1).filter(b =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)));
  const found = {
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    charts: shown.length,
    empty_lines: shown.flatMap(svg => [...svg.querySelectorAll("path.line")])
      .filter(path => path.getTotalLength() === 0).length,
    smallest_text: Math.min(...shown.flatMap(svg => [...svg.querySelectorAll("text")].map(
      text => parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width
        / svg.viewBox.baseVal.width))),
    overlapping: overlapping.length,
    headline: document.querySelector("h1").innerText,
    headline_top: document.querySelector("h1").getBoundingClientRect().top,
    page: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    requests: performance.getEntriesByType("resource").length,
  };
  const told = document.createElement("pre");
  told.id = "probe";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
});
</script>
"""


def chromium() -> str:
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError("no Chromium: run  sh tests/ensure_debian.sh chromium chromium")


def probe(*views: tuple[Path, int], dark: bool = False) -> list[dict[str, Any]]:
    """Pages laid out so many pixels wide, each inside a frame: windows refuse to be that narrow."""
    frames = []
    for number, (page, width) in enumerate(views):
        inner = page.with_suffix(f".probe{number}.html")
        inner.write_text(page.read_text("utf-8").replace("</body>", PROBE + "</body>"), "utf-8")
        size = f'width="{width}" height="4000" frameborder="0"'
        frames.append(f'<iframe src="{inner.as_uri()}" {size}></iframe>')
    outer = views[0][0].with_suffix(".frames.html")
    outer.write_text(
        f'<body style="margin:0">{"".join(frames)}<script>addEventListener("load", () => '
        "setTimeout(() => {for (const frame of document.querySelectorAll('iframe')) "
        'document.body.append(frame.contentDocument.getElementById("probe"))}, 300))</script>',
        "utf-8",
    )
    dom = _run(outer, "--dump-dom", "--virtual-time-budget=3000", dark=dark, target=outer)
    found = re.findall(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert len(found) == len(views), f"a page never reported: {dom[:500]}"
    return [orjson.loads(unescape(measured)) for measured in found]


def picture(page: Path, image: Path, *, width: int, height: int) -> None:
    """A PNG, for a person to look at."""
    _run(page, f"--screenshot={image}", f"--window-size={width},{height}", target=page)


def _run(page: Path, *options: str, target: Path, dark: bool = False) -> str:
    command = [
        *(chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-dev-shm-usage", "--allow-file-access-from-files"),
        *([f"--user-data-dir={page.parent / 'profile'}"]),
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        *options,
        target.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return done.stdout.decode("utf-8")
