"""Runs a stub in a child process, for checks and tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import orjson


class StubProcess:
    """``with StubProcess(service="constant:5ms") as stub: … stub.url``; then ``stub.counts``.

    Keywords are the options of ``python -m loadtest stub``.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.counts: dict[str, int] = {}

    def __enter__(self) -> StubProcess:
        arguments = [
            part
            for name, value in self._options.items()
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "loadtest", "stub", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the stub did not start; see its output above")
        ports = orjson.loads(line)
        self.url = f"http://127.0.0.1:{ports['port']}"
        self.admin_url = f"http://127.0.0.1:{ports['admin_port']}"
        self.pid = self._process.pid
        return self

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __exit__(self, *_: object) -> None:
        self.resume()
        self._process.terminate()
        output = self._process.communicate(timeout=10)[0]
        if output:
            self.counts = orjson.loads(output.splitlines()[-1])
