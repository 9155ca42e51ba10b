"""Logs of requests, as ``loadtest plan`` writes them, are scored as the service answers them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.inputs import request_log
from batch.inputs.source import open_input
from feature_store.parquet.columns import DataFileError
from tests.batch.command import run, score, scored
from tests.batch.inputs import write
from tests.service.world import World


def test_a_plan_has_the_bits_of_the_service_and_is_compared(
    world: World, client: httpx.Client, tmp_path: Path
) -> None:
    items = write(pa.table({"item_id": world.ids}), tmp_path / "items.parquet")
    log = tmp_path / "plan.jsonl"
    plan = [
        *(sys.executable, "-m", "loadtest", "plan", str(client.base_url), "--out", str(log)),
        *("--rate", "60", "--duration", "1s", "--users", "1..40"),
        *("--items", str(items), "--candidates", "40", "--events", "0.2"),
    ]
    done = subprocess.run(plan, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    requests = [line for line in lines if "candidates" in line]
    assert 0 < len(requests) < len(lines)
    history = world.ids[:3].tolist()
    requests[1]["history"] = history  # as of `plan --inline-history`
    requests[2]["history"] = []
    log.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    found = scored(world, log, tmp_path / "a", "--keep", "at").to_pylist()
    assert [row["at"] for row in found] == [request["at"] for request in requests]
    for request, row in zip(requests, found, strict=True):
        body = {name: value for name, value in request.items() if name != "at"}
        answer = client.post("/v1/score", json=body).json()
        assert row["item_ids"] == answer["item_ids"]
        wanted = np.array(answer["scores"], np.float32)
        assert np.array(row["scores"], np.float32).tobytes() == wanted.tobytes()
        assert row["user_status"] == ("cold" if answer["cold_user"] else "known")
    compared = run("compare", *[str(tmp_path / "a")] * 2, "--input", str(log), "--json")
    assert compared.returncode == 0, compared.stderr
    assert orjson.loads(compared.stdout)["scored_by_both"] == 40 * len(requests)


REQUEST = {"at": 0.5, "user_id": 1, "candidates": [4, 5]}


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (b'{"at": 1', "line 2: not JSON: unexpected end of data"),
        (b"[1]", "line 2: not a JSON object"),
        (b"{}", "line 2: neither 'candidates' (a score request) nor 'item_id' (a click)"),
        (b'{"candidates": [1]}', "line 2: has no 'user_id'"),
        (b'{"user_id": 1, "candidates": 7}', "line 2: candidates: not a list of ids"),
        (b'{"user_id": 1, "candidates": [1], "history": 7}', "line 2: history: not a list"),
        (b'{"user_id": 1, "candidates": [1], "features": 7}', "line 2: features: not an object"),
        (
            b'{"user_id": 1, "candidates": [1], "context": {"level": [1]}}',
            "line 2: context: level is in some requests alone",
        ),
        (b'{"user_id": "a", "candidates": [1]}', "line 2: user_id: 'a' is no id here"),
        (b'{"user_id": 1, "candidates": [1.5]}', "line 2: item_ids: 1.5 is no id here"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, second: bytes, said: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(orjson.dumps(REQUEST) + b"\n" + second + b"\n")

    def read() -> None:
        parts = open_input(str(log))
        list(parts.batches(parts.columns, 10))

    with pytest.raises(DataFileError) as caught:
        read()
    assert str(caught.value).startswith(f"{log}: ")
    assert said in str(caught.value)


def test_a_fault_of_a_value_has_its_row_and_nothing_is_left(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [REQUEST, {"user_id": 1, "item_id": 4}, REQUEST | {"candidates": [4, -5]}]
    log.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    done = score(world, log, tmp_path / "out")
    assert done.returncode == 1
    assert f"error: {log}: row 1, column item_ids: -5 is negative" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_first_request_without_a_user_is_named_by_it(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(map(orjson.dumps, [REQUEST | {"user_id": None}, REQUEST])))
    done = score(world, log, tmp_path / "out")
    assert f"error: {log}: row 0, column user_id: null" in done.stderr
    assert score(world, log, tmp_path / "out", "--max-rejects", "1").returncode == 3


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.integers(0, 30))
def test_a_log_is_read_from_any_row(
    tmp_path_factory: pytest.TempPathFactory, clicks: list[bool], at_once: int, start: int
) -> None:
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    kinds = [{"item_id": 1} if click else {"candidates": [n]} for n, click in enumerate(clicks)]
    log.write_bytes(b"".join(orjson.dumps({"user_id": 1} | k) + b"\n" for k in kinds))
    wanted = [[n] for n, click in enumerate(clicks) if not click]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_log, "MARKED", 3)
        parts = open_input(str(log))
        assert parts.rows == len(wanted)
        found = []
        for first, _, arrays in parts.batches(("item_ids",), at_once, start):
            assert first == start + len(found)
            found += arrays["item_ids"].to_pylist()
    assert found == wanted[start:]
