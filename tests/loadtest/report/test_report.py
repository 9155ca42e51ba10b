"""The report in a real headless browser: readable on a phone, whole in one file, light and dark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from loadtest.analysis.results import summarise
from loadtest.analysis.slo import Slo
from loadtest.environment import provenance
from loadtest.experiments.process import resident_mib
from loadtest.experiments.soak import ResourceMonitor
from loadtest.experiments.stub_process import StubProcess
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import Workload
from loadtest.report import experiments as pages
from loadtest.report.page import write_run
from tests.loadtest.browser import picture, probe

LOAD = Load("http://127.0.0.1:1", rate=100, seconds=5, workload=Workload(candidates="8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with sheds, failures and a memory section: everything the page can show."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    with StubProcess(service="exponential:6ms", servers=1, queue=8, fail_every=40) as stub:
        workload = Workload(candidates="8", distinct=100)
        load = Load(stub.url, rate=150, seconds=3, warmup=0.2, workload=workload, stages=True)
        watch = ResourceMonitor(stub.pid, every=0.1)
        with execute(load, background=watch) as run:
            result = summarise(run, [Slo.parse("p99=40ms"), Slo.parse("p50=9ms")])
            soak = watch.judge(settle=0.2, growth=0.5, more_descriptors=64)
            write_run(path, run, result, [pages.soak_section(soak)])
    return path


def study_pages(folder: Path) -> dict[str, Path]:
    latency = {"p50": 3.0, "p90": 5.0, "p95": 6.0, "p99": 9.0, "p99.9": None, "mean": 3.5}
    point: dict[str, Any] = {
        "requests": 1000,
        "buckets": {"ok": 990, "shed": 10},
    }
    points = [
        {
            **point,
            "rate": rate,
            "latency_ms": {k: v and v * rate / 50 for k, v in latency.items()},
            "answered_per_s": min(rate, 120.0),
            "goodput_per_s": min(rate, 110.0),
        }
        for rate in (25.0, 50.0, 100.0, 200.0)
    ]
    search = {
        **provenance(LOAD),
        "knee_per_s": 100.0,
        "first_miss_per_s": 105.0,
        "confirmations": 3,
        "slo": "p99=25ms",
        "limit_ms": 25.0,
        "goodput_at_knee_per_s": 100.0,
        "points": points,
    }
    ratio = {"ratio": 1.1, "low": 1.02, "high": 1.2}
    same = {"ratio": 1.0, "low": 0.97, "high": 1.03}
    effects = {
        metric: {"b_over_a": ratio, "control": same, "shown": True} for metric in ("p50", "p99")
    }
    segment = {"arm": "A", "latency_ms": latency, "buckets": {"ok": 10}}
    comparison = {
        **provenance(LOAD),
        "b": provenance(LOAD)["settings"],
        "effects": effects,
        "rounds": [[segment] * 6] * 3,
        "order": ["A", "B"],
    }
    paths = {"search": folder / "search.html", "compare": folder / "compare.html"}
    pages.write_search(paths["search"], search)
    pages.write_comparison(paths["compare"], comparison)
    return paths


def readable(found: dict[str, Any]) -> None:
    assert found["scroll"] <= found["width"], "it scrolls sideways"
    assert found["charts"] >= 1
    assert found["empty_lines"] == 0
    assert found["overlapping"] == 0, "labels lie on each other"
    assert found["smallest_text"] >= 11
    assert found["headline_top"] < 100
    assert found["requests"] == 0, "it loads something from elsewhere"


def test_a_run_is_readable_on_a_phone_and_on_a_screen(page: Path) -> None:
    for found in probe((page, 360), (page, 1000)):
        readable(found)
        assert found["charts"] == 4  # percentiles, timeline, memory, endings
        assert re.match(r"(PASS|FAIL|UNDECIDED|INVALID): ", found["headline"])


def test_it_follows_the_dark_scheme(page: Path) -> None:
    (light,), (dark,) = probe((page, 400)), probe((page, 400), dark=True)
    brightness = {
        name: [sum(map(int, re.findall(r"\d+", found[name]))) for found in (light, dark)]
        for name in ("page", "ink")
    }
    assert brightness["page"][0] > 600 > 150 > brightness["page"][1]
    assert brightness["ink"][0] < 150 < 600 < brightness["ink"][1]


def test_the_studies_are_readable_on_a_phone_and_on_a_screen(tmp_path: Path) -> None:
    pages = study_pages(tmp_path).values()
    for found in probe(*((page, width) for page in pages for width in (360, 1000))):
        readable(found)


def test_it_is_one_file_with_its_command_and_environment(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"(?:src|href)=|url\(|@import", text)
    for wanted in ("Load average", "Made with", "Zipf 0.9", "slowest 1%", "Memory of the service"):
        assert wanted in text
    assert len(text) < 300_000


def test_a_picture_of_it_is_not_blank(page: Path, tmp_path: Path) -> None:
    image = tmp_path / "page.png"
    picture(page, image, width=800, height=1200)
    assert image.stat().st_size > 20_000  # a blank page compresses to a few kilobytes


def test_the_stub_has_a_memory_to_draw(quick_stub: StubProcess) -> None:
    assert 5 < resident_mib(quick_stub.pid) < 500
