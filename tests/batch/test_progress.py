"""What a run says: events, metrics, what it would do."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from batch.processor import processor_kind
from tests.batch.command import parts, score
from tests.batch.inputs import make_lists, write
from tests.service.world import World


def test_events_are_json_lines_and_metrics_a_textfile(world: World, tmp_path: Path) -> None:
    lists = make_lists(world, 60)
    source = write(lists.table(), tmp_path / "l.parquet")
    metrics = tmp_path / "metrics" / "qin.prom"
    done = score(
        world, source, tmp_path / "out", "--json", "--metrics", str(metrics),
        "--part-candidates", "2000",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    events = [orjson.loads(line) for line in done.stdout.splitlines()]
    candidates = sum(len(items) for items in lists.items)
    assert events[0]["event"] == "begin"
    assert events[0]["candidates_all"] == candidates
    assert events[-1]["event"] == "complete"
    assert events[-1]["parts"] == len(parts(tmp_path / "out"))
    last = next(event for event in reversed(events) if event["event"] == "progress")
    assert (last["candidates"], last["left_s"]) == (candidates, 0)
    found = {
        family.name: family.samples[0].value
        for family in text_string_to_metric_families(metrics.read_text())
    }
    assert found["qin_batch_complete"] == 1
    assert found["qin_batch_candidates_done"] == candidates


def test_an_error_is_an_event_too(world: World, tmp_path: Path) -> None:
    done = score(world, tmp_path / "absent.parquet", tmp_path / "out", "--json")
    assert done.returncode == 1
    (event,) = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert event["event"] == "failed"
    assert "no such file" in event["error"]


def test_a_dry_run_says_what_is_left_and_writes_nothing(world: World, tmp_path: Path) -> None:
    lists = make_lists(world, 60)
    for name, table in (("l", lists.table()), ("r", lists.rows())):
        source = write(table, tmp_path / f"{name}.parquet")
        output = tmp_path / name
        options = ("--dry-run", "--json", "--part-candidates", "2000")
        done = score(world, source, output, *options)
        assert done.returncode == 0, done.stderr
        (event,) = [orjson.loads(line) for line in done.stdout.splitlines()]
        assert event["candidates_left"] == sum(len(items) for items in lists.items)
        assert event["parts"] == event["parts_left"] > 1
        assert event["seconds"] > 0
        assert not output.exists()


def test_kinds_of_processors_differ_by_what_decides_their_products(tmp_path: Path) -> None:
    text = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t: 207\nflags\t: fma avx2 amx_tile\n"
    (tmp_path / "one").write_text(text)
    (tmp_path / "two").write_text(text.replace(" amx_tile", ""))
    one, two = processor_kind(tmp_path / "one"), processor_kind(tmp_path / "two")
    assert one.endswith("GenuineIntel/6/207 fma avx2 amx_tile")
    assert two == one.removesuffix(" amx_tile")
    assert processor_kind(tmp_path / "absent") == one.split()[0]


def test_ray_that_is_not_installed_is_said(world: World, tmp_path: Path) -> None:
    if find_spec("ray"):
        pytest.skip("it is installed")
    source = write(make_lists(world, 5).table(), tmp_path / "l.parquet")
    done = score(world, source, tmp_path / "out", "--on", "ray")
    assert done.returncode == 1
    assert "error: --on ray: Ray is not installed; install the extra `ray`" in done.stderr
