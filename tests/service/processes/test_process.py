"""Starting and stopping, as an operator sees it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from model_export.bundle.bundle import digest
from model_export.bundle.manifest import GOLDEN, MANIFEST
from tests.service.mapped_world import MappedWorld, text_of
from tests.service.process import Service, serving, start, wait_ready
from tests.service.user_world import make_user_world
from tests.service.world import World, make_world


def run_to_end(*options: str, fresh: bool = False, **variables: str) -> tuple[int, str]:
    service = start(*options, fresh=fresh, **variables)
    code = service.process.wait(60)
    said = service.log.read_text()
    service.remove()
    return code, said


def test_a_missing_bundle_is_one_clear_line(tmp_path: Path) -> None:
    missing = ("--bundle", str(tmp_path / "none"), "--store", "lmdb://none")
    code, said = run_to_end(*missing, fresh=True)
    assert code == 1
    (line,) = [line for line in said.splitlines() if '"event":"access"' not in line]
    assert f"{tmp_path / 'none'}: holds no bundle" in line


def test_a_missing_store_is_one_clear_line(world: World, tmp_path: Path) -> None:
    missing = tmp_path / "none"
    code, said = run_to_end("--bundle", str(world.models), "--store", f"lmdb://{missing}")
    assert code == 1
    assert "Traceback" not in said
    assert str(missing) in said


def test_a_setting_that_is_none_is_named(world: World) -> None:
    code, said = run_to_end("--bundle", str(world.models), QIN_DEADLINE_MS="soon")
    assert code == 2
    assert "QIN_DEADLINE_MS" in said
    assert "Traceback" not in said


def test_a_misspelt_variable_is_pointed_out(tmp_path: Path) -> None:
    _, said = run_to_end("--bundle", str(tmp_path), QIN_DEADLNIE_MS="5")
    assert "QIN_DEADLNIE_MS" in said


def test_a_port_in_use_ends_the_process(world: World) -> None:
    with serving(world.models, world.store) as first:
        port = ["--port", str(first.port)]
        code, said = run_to_end("--bundle", str(world.models), "--store", world.store, *port)
    assert code != 0
    assert "Address already in use; set QIN_PORT" in said


def test_a_bundle_that_contradicts_its_golden_answers_is_never_ready(tmp_path: Path) -> None:
    """The files are what the manifest says; only the answers are another network's."""
    world = make_world(tmp_path, items=20, users=2)
    golden, manifest = world.bundle.path / GOLDEN, world.bundle.path / MANIFEST
    with np.load(golden) as file:
        arrays = dict(file)
    arrays["probability"] = arrays["probability"] + np.float32(2e-5)
    np.savez(golden, **arrays)
    content = json.loads(manifest.read_text())
    content["files"][GOLDEN] = digest(golden).model_dump()
    manifest.write_bytes(orjson.dumps(content))
    code, said = run_to_end("--bundle", str(world.models), "--store", world.store)
    assert code == 1
    assert "golden" in said
    assert "Traceback" not in said


def test_a_bundle_is_refused_by_a_store_without_one_of_its_features(
    world: World, tmp_path: Path
) -> None:
    fewer = world.schema.model_copy(update={"context": world.schema.context[:1]})
    another = make_world(tmp_path, fewer, items=5, users=2)
    code, said = run_to_end("--bundle", str(world.models), "--store", another.store)
    assert code == 1
    assert "views_level" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean(world: World, number: signal.Signals) -> None:
    service = start("--bundle", str(world.models), "--store", world.store, fresh=True)
    wait_ready(service)
    service.process.send_signal(number)
    assert service.process.wait(30) == 0
    assert "Traceback" not in service.log.read_text()
    service.remove()


def test_a_stop_while_loading_is_clean(world: World) -> None:
    service = start("--bundle", str(world.models), "--store", world.store)
    with service.client() as client:
        while service.process.poll() is None:
            try:
                client.get("/livez")
                break
            except httpx.TransportError:
                time.sleep(0.005)
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()
    service.remove()


def test_a_half_sent_body_does_not_outlive_the_grace_time(world: World) -> None:
    with (
        serving(world.models, world.store, QIN_SHUTDOWN_GRACE_S="1") as service,
        socket.create_connection((service.host, service.port)) as connection,
    ):
        connection.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"
        )
        time.sleep(0.2)
        service.stop()  # which waits no longer than half a minute


def test_user_ids_are_not_in_the_log(world: World) -> None:
    with serving(world.models, world.store, QIN_LOG_SAMPLE="1") as service:
        with service.client() as client:
            for _ in range(2):
                body = {"user_id": 998877665544, "candidates": [1]}
                assert client.post("/v1/score", json=body).is_success
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert "998877665544" not in json.dumps(lines)
    logged = [line for line in lines if line["event"] == "score"]
    assert len({line["user"] for line in logged}) == 1
    assert {"request_id", "stages_ms", "ms", "status"} <= logged[0].keys()


def test_help_needs_no_bundle() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--bundle" in done.stdout


@pytest.mark.parametrize("ids", ["numeric", "mapped"])
def test_an_example_is_shown_with_its_real_answer(
    world: World, mapped: MappedWorld, ids: str
) -> None:
    query, answer = example(world.models, mapped.store if ids == "mapped" else world.store)
    assert answer["item_ids"] == query["candidates"]
    assert answer["cold_user"] is False
    assert "features" not in query
    if ids == "mapped":
        assert query["user_id"] in map(text_of, world.users)


def test_an_example_for_a_model_with_request_features_gives_them(tmp_path: Path) -> None:
    world = make_user_world(tmp_path).world
    query, answer = example(world.models, world.store)
    assert query["features"] == {"device": 1, "hour": 12.0}
    assert answer["item_ids"] == query["candidates"]
    assert not {"device", "hour"} & set(answer["defaulted"])


@pytest.mark.parametrize("workers", [1, 2])
def test_an_example_ends_with_the_addresses_for_a_browser(world: World, workers: int) -> None:
    options = ("--bundle", str(world.models), "--store", world.store, "--workers", str(workers))
    said = output_of(start(*options, "--example"), "Ctrl-C")
    pages = re.findall(r"^  (http:\S+)  ", said.partition("In a browser:\n")[2], re.MULTILINE)
    (log,) = [json.loads(line) for line in said.splitlines() if '"listening"' in line]
    assert pages == [f"{log['url']}/docs", f"{log['admin']}/console"]


def test_an_example_names_no_console_that_is_off(world: World) -> None:
    options = ("--bundle", str(world.models), "--store", world.store, "--example")
    said = output_of(start(*options, QIN_CONSOLE="off"), "Ctrl-C")
    assert "/docs" in said
    assert "/console" not in said


def output_of(service: Service, last: str) -> str:
    """What a service prints up to ``last``."""
    wait_ready(service)
    deadline = time.monotonic() + 60
    while last not in (said := service.log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    service.stop()
    service.remove()
    return said


def example(models: Path, store: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request that a service shows, and its answer."""
    service = start("--bundle", str(models), "--store", store, "--example")
    said = output_of(service, "Ctrl-C")
    assert f"curl -s {service.url}/v1/score" in said
    (shown,) = [line for line in said.splitlines() if "curl" in line]
    (answer,) = [line for line in said.splitlines() if '"scores"' in line]
    return json.loads(shlex.split(shown)[-1]), json.loads(answer)
