"""Programs in processes of their own that need not import torch again: a fork server has.

``python -m training fit`` spends 6 s of processor time on imports and .1 s on a small run. Tests of
what is imported start an interpreter instead; ``tests/test_makefile.py`` runs the commands so.
"""

from __future__ import annotations

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_fork_server = get_context("forkserver")
_fork_server.set_forkserver_preload(["tests.imported"])


@contextmanager
def running(
    module: str,
    *words: str,
    out: Path = Path(os.devnull),
    err: Path = Path(os.devnull),
    **env: str,
) -> Iterator[ForkServerProcess]:
    """``python -m module words``, killed at the end of the block if it still runs.

    It writes to ``out`` and ``err``, and has the variables ``env`` besides this process's.
    """
    arguments = (module, words, out, err, {**os.environ, **env})
    process = _fork_server.Process(target=_main, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def send(process: ForkServerProcess, signum: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, signum)


def run(
    module: str, *words: str, timeout: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module words`` to its end, as ``subprocess.run`` does."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        with running(module, *words, out=out, err=err, **env) as process:
            process.join(timeout)
            assert process.exitcode is not None, f"{module}: not ended in {timeout:.0f} s"
            return subprocess.CompletedProcess(
                [module, *words], process.exitcode, out.read_text("utf-8"), err.read_text("utf-8")
            )


def _main(module: str, words: tuple[str, ...], out: Path, err: Path, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing's processes end without
