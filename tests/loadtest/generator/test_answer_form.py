"""What answers of odd form do to a run: they end as wrong, and the generator goes on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from loadtest.generator.answer_form import LONGEST_NAME, MOST_VERSIONS, parse_server_timing
from loadtest.generator.columns import STAGES
from loadtest.generator.runner import execute
from tests.loadtest.generator.test_generator import measured, raw_server, small_load

Edit = Callable[[dict[str, Any], int], None]


def editing(
    edit: Edit = lambda answer, number: None, header: Callable[[int], str] = lambda number: ""
) -> Callable[[socket.socket], None]:
    """Answer every request rightly, but for an edit of the n-th answer and its headers."""
    numbers = iter(range(1 << 20))

    def answer(connection: socket.socket) -> None:
        while data := connection.recv(1 << 20):
            number, asked = next(numbers), orjson.loads(data.partition(b"\r\n\r\n")[2])
            scores = [0.5] * len(asked["candidates"])
            found = {"item_ids": asked["candidates"], "scores": scores, "model_version": "v"}
            edit(found, number)
            body = orjson.dumps(found)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{header(number)}\r\n"
            connection.sendall(head.encode() + body)

    return answer


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ("cdn-cache; desc=HIT, edge; dur=abc, app;dur=1.5", [("app", 1.5)]),
        ("a;dur=nan, b;dur=1e400, c;dur=, d;dur=2", [("d", 2.0)]),
        (";dur=1, " + "x" * 99 + ";dur=1", []),
    ],
)
def test_stages_of_odd_form_are_left_out(header: str, stages: list[tuple[str, float]]) -> None:
    assert list(parse_server_timing(header)) == stages


def test_a_run_keeps_its_first_stages_whatever_a_proxy_adds() -> None:
    def header(number: int) -> str:
        many = ", ".join(f"s{number}-{stage};dur=1" for stage in range(STAGES // 2))
        return f"Server-Timing: edge;dur=abc, {many}\r\n"

    with raw_server(editing(header=header)) as url:
        load = small_load(url, rate=60, seconds=0.5, stages=True, generators=2)
        with execute(load) as run:
            assert len(run.stage_names) == STAGES


@pytest.mark.parametrize(
    "odd",
    [
        {"defaulted": 5},
        {"ignored": [{}]},
        {"degraded": "history"},
        {"model_version": "v" * (LONGEST_NAME + 1)},
        {"model_version": None},
    ],
)
def test_an_answer_whose_members_are_of_another_type_is_wrong(odd: dict[str, Any]) -> None:
    with raw_server(editing(lambda answer, number: answer.update(odd))) as url:
        result = measured(small_load(url, rate=60, seconds=0.5, keep_answers=True))
    assert result["reasons"] == {"body": result["requests"]}


def test_a_service_that_invents_versions_does_not_stop_the_generator() -> None:
    def edit(answer: dict[str, Any], number: int) -> None:
        answer["model_version"] = f"{number:0{LONGEST_NAME}}"

    with raw_server(editing(edit)) as url:
        result = measured(small_load(url, rate=600, seconds=1))
    assert len(result["versions"]) == result["buckets"]["ok"] == MOST_VERSIONS
    assert result["reasons"] == {"body": result["requests"] - MOST_VERSIONS}
