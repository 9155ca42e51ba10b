"""Services forked from a process that has imported what they import.

``python -m service serve`` spends 1 s of processor time on imports, and tests start it some 150
times. A fork runs the same ``__main__`` and ends as an interpreter does. Workers, commands but for
those of ``run``, what is started ``under`` another command and all that is started outside pytest
are interpreters of their own. Affinity, limits and what is read from the environment at import are
those of this process when it first started one; all forks share one hash seed, and memory pages
with each other.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

MOST_BYTES = 1 << 20  # of a message
# pyarrow's allocator has a thread of its own; Python 3.12 and later warn of a fork beside threads.
ONE_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


class Forked:
    """A started service; the part of ``subprocess.Popen`` that tests use."""

    _handle = -1  # until it has started

    def __init__(
        self,
        words: tuple[str, ...],
        env: dict[str, str],
        output: int,
        errors: int | None = None,
        module: str = "service",
    ) -> None:
        self._server = _server()
        ask = {"module": module, "words": words, "env": env, "cwd": os.getcwd()}
        self.pid: int = self._server.ask(ask, output, output if errors is None else errors)
        self.returncode: int | None = None
        self._handle = os.pidfd_open(self.pid)  # its number is not given away before it is reaped

    def poll(self) -> int | None:
        return self._reap() if select.select([self._handle], [], [], 0)[0] else self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("service", timeout or 0.0)
        return self._reap()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _reap(self) -> int:
        if self.returncode is None:
            self.returncode = int(self._server.ask({"reap": self.pid}))
        return self.returncode

    def __del__(self) -> None:
        if self._handle != -1:
            os.close(self._handle)


def run(
    module: str, *words: str, timeout: float = 120, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module words`` to its end, as ``subprocess.run`` does.

    What the module imports and the service does not, it imports itself.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        env = {**os.environ, **variables}
        process = Forked(words, env, out.fileno(), err.fileno(), module)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess([module, *words], code, out.read(), err.read())


class _Server:
    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ONE_THREAD},
            )
        self._lock = Lock()
        atexit.register(self._end)

    def ask(self, message: dict[str, Any], *descriptors: int) -> int:
        with self._lock:
            socket.send_fds(self._ours, [json.dumps(message).encode()], descriptors)
            answer = self._ours.recv(MOST_BYTES)
        assert answer, "the process that forks services has ended"
        return int(answer)

    def _end(self) -> None:
        self._ours.close()
        self._process.wait()


@cache
def _server() -> _Server:
    return _Server()


def _serve(asks: socket.socket) -> dict[str, Any] | None:
    """Fork at each request. Returns in the child, with the request; None: no more come."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(asks, MOST_BYTES, 2)
        if not message:
            return None
        ask: dict[str, Any] = json.loads(message)
        if "reap" in ask:
            answer = os.waitstatus_to_exitcode(os.waitpid(ask["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                asks.close()
                for number, descriptor in enumerate(descriptors, 1):
                    os.dup2(descriptor, number)
            for descriptor in descriptors:
                os.close(descriptor)
            if answer == 0:
                return ask
        asks.send(str(answer).encode())


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of the group

    import service.cli.example
    import service.cli.models
    import service.cli.probe
    import service.processes.run
    import service.processes.supervisor  # noqa: F401

    ask = _serve(socket.socket(fileno=int(sys.argv[1])))
    if ask is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    os.chdir(Path(ask["cwd"]))
    os.environ.clear()
    os.environ.update(ask["env"])
    sys.argv = [ask["module"], *ask["words"]]
    runpy.run_module(ask["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
