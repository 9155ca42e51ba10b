"""The service as its users run it: a child process on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.ports import free_port
from tests.service import verified_copies
from tests.service.forked import Forked

START_TIMEOUT_S = 120.0
PATIENCE_MS = "10000"  # a busy test machine is no reason to refuse


@dataclass(frozen=True, slots=True)
class Service:
    process: subprocess.Popen[bytes] | Forked
    host: str
    port: int
    log: Path
    admin_port: int = 0
    private: Path = Path()
    private_is_ours: bool = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def admin(self, token: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"http://127.0.0.1:{self.admin_port}"
        return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def remove(self) -> None:
        """Its log, and its private folder unless that was given. Of one that has ended."""
        self.log.unlink()
        if self.private_is_ours:
            shutil.rmtree(self.private, ignore_errors=True)


def in_pytest() -> bool:
    return "PYTEST_CURRENT_TEST" in os.environ


def start(
    *options: str,
    under: Sequence[str] = (),
    fresh: bool = False,
    verified: Path | None = None,
    **variables: str,
) -> Service:
    """``python -m service serve`` with these options; not waited for.

    Unless ``QIN_PRIVATE`` is given it has a private folder of its own. ``remove`` removes what is
    left of it. ``under`` is a command that ends by running the one it is given. ``fresh``: an
    interpreter of its own, not a fork of one that has imported the service; outside pytest all are,
    so that figures are of services as they are run. ``verified``: models of which it finds the
    copies in its own private folder that an earlier service has verified.
    """
    port = free_port()
    admin_port = int(variables.get("QIN_ADMIN_PORT") or free_port())
    private = Path(variables.get("QIN_PRIVATE") or tempfile.mkdtemp(prefix="private-"))
    ours = not variables.get("QIN_PRIVATE")
    if verified is not None and ours:
        verified_copies.lend(private, verified)
    log = Path(tempfile.mkstemp(prefix="service-", suffix=".log")[1])
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "QIN_ADMIN_PORT": str(admin_port),
        "QIN_PRIVATE": str(private),
        "QIN_TARGET_MS": PATIENCE_MS,
        "QIN_DRAIN_NOTICE_S": "0",
        "QIN_HEADERS_TIMEOUT_MS": PATIENCE_MS,  # nor to hang up
        "QIN_BODY_TIMEOUT_MS": PATIENCE_MS,
        **({} if under else {"QIN_ENGINE_NICENESS": "0"}),  # beside other tests they would starve
        **variables,
    }
    words = ("serve", "--port", str(port), *options)
    own = fresh or not in_pytest()
    process: subprocess.Popen[bytes] | Forked
    with log.open("wb") as output:
        if under or own or not all(name.startswith("QIN_") for name in variables):
            command = [*under, sys.executable, "-m", "service", *words]
            process = subprocess.Popen(command, env=env, stderr=output, stdout=output)
        else:
            process = Forked(words, env, output.fileno())
    host = {"0.0.0.0": "127.0.0.1"}.get(bound := variables.get("QIN_HOST", "127.0.0.1"), bound)
    return Service(process, host, port, log, admin_port, private, ours)


def wait_ready(service: Service) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with service.client() as client:
        while time.monotonic() < deadline:
            if service.process.poll() is not None:
                raise AssertionError(f"it ended: {service.log.read_text()}")
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise AssertionError(f"not ready in time: {service.log.read_text()}")


@contextmanager
def serving(
    bundle: Path, store: str, *, under: Sequence[str] = (), **variables: str
) -> Iterator[Service]:
    """A ready service, stopped at the end of the block.

    In pytest, it verifies no bundle that another has, unless ``QIN_PRIVATE`` is given.
    """
    options = ("--bundle", str(bundle), "--store", store)
    verified = bundle if in_pytest() and not under else None
    service = start(*options, under=under, verified=verified, **variables)
    try:
        wait_ready(service)
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()
        if verified is not None and service.private_is_ours:
            verified_copies.keep(service.private)
        service.remove()
