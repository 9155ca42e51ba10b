"""``python -m service probe``: a container's health check."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.ports import free_port
from tests.service.process import Service, serving
from tests.service.world import World

DOCKERFILE = (Path(__file__).parents[3] / "Dockerfile").read_text()
PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:9")


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *command[1:]]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, check=False
    )


def health_check() -> list[str]:
    found = re.search(r"^HEALTHCHECK [^\[]*(\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    command: list[str] = json.loads(found[1])
    assert command[0] == "python"
    return command


def test_the_image_asks_the_port_of_its_settings_and_no_proxy(service: Service) -> None:
    done = run(health_check(), QIN_HOST="0.0.0.0", QIN_PORT=str(service.port), **PROXIES)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_port_given_as_an_option_is_asked(service: Service) -> None:
    command = [*health_check(), "--port", str(service.port)]
    assert run(command, QIN_PORT="1").returncode == 0


def test_without_an_answer_or_a_known_port_it_fails_in_one_line() -> None:
    for port, reason in ((str(free_port()), ": Connection refused\n"), ("0", "QIN_PORT is 0")):
        done = run(health_check(), QIN_PORT=port)
        assert done.returncode == 1
        assert done.stderr.startswith("not ready: ")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_service_that_is_not_ready_fails_it(world: World) -> None:
    with serving(world.models, world.store, QIN_DRAIN_NOTICE_S="8") as service:
        service.process.terminate()
        with service.client() as client:
            while client.get("/readyz").status_code == 200:
                pass
        done = run(health_check(), QIN_PORT=str(service.port))
        assert done.returncode == 1
        assert f"127.0.0.1:{service.port}: 503 " in done.stderr
        assert done.stderr.count("\n") == 1
