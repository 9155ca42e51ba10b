"""How the measurement of items put with texts counts what became of the writes."""

from __future__ import annotations

import httpx
import pytest

from tests.service.item_writer import WRITES, Writes

PUT, SCORED = httpx.Response(200), httpx.Response(200, json={"scores": [0.25]})


def counted(*pairs: tuple[httpx.Response, httpx.Response | None]) -> Writes:
    writes = Writes()
    for put, scored in pairs:
        writes.count(put, scored, 0.5)
    return writes


@pytest.mark.parametrize("status", [429, 503])
def test_a_write_that_the_service_refuses_is_no_failure(status: int) -> None:
    refused = httpx.Response(status, text="over capacity")
    writes = counted((PUT, SCORED), (refused, None), (PUT, httpx.Response(status)))
    assert (writes.seconds, writes.refused, writes.failed) == ([0.5], 2, 0)


def test_other_answers_and_an_item_without_a_score_are_failures() -> None:
    without = httpx.Response(200, json={"scores": [None]})
    writes = counted((httpx.Response(400, text="no text"), None), (PUT, without), (PUT, SCORED))
    assert (writes.seconds, writes.refused, writes.failed) == ([0.5], 0, 2)
    assert writes.faults == ["400 no text", '200 {"scores":[null]}']


def test_writes_that_were_due_and_never_sent_count() -> None:
    writes = counted((PUT, SCORED), (httpx.Response(429), None), (httpx.Response(500), None))
    writes.end(1.0)
    row = writes.row()
    assert (row["due"], row["done"], row["refused"], row["failed"]) == (WRITES, 1, 1, 1)
    assert row["not_sent"] == WRITES - 3
    assert row["p50_ms"] == 500


def test_a_run_without_a_write_done_has_no_percentiles() -> None:
    assert "p50_ms" not in counted((httpx.Response(429), None)).row()
