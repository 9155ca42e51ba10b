"""Workers of a batch run that need not import again what a worker imports: a fork server has.

A worker spends .8 s of processor time on imports and .1 s on a small run. The fork server is one
beside that of ``tests.programs``, whose programs train.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import context, forkserver, popen_forkserver
from typing import Any
from unittest.mock import patch

from batch.engines import local


class _Server(forkserver.ForkServer):
    """A fork server of its own, in the place of the module that has one for all."""

    read_signed = staticmethod(forkserver.read_signed)


_server = _Server()
_server.set_forkserver_preload(["batch.engines.local"])


class _Popen(popen_forkserver.Popen):
    def _launch(self, process: Any) -> None:
        with patch.object(popen_forkserver, "forkserver", _server):
            super()._launch(process)


class _Process(context.ForkServerProcess):
    """Has the variables that this process has now, not those the server began with."""

    def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> None:
        super().__init__(target=_with, args=(dict(os.environ), target, args), daemon=daemon)

    @staticmethod
    def _Popen(process: Any) -> _Popen:  # noqa: N802 — multiprocessing's
        return _Popen(process)


class _Context(context.ForkServerContext):
    Process = _Process  # type: ignore[assignment]


def _with(environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*args)


def forked() -> Any:
    """Within this block, workers are forked."""
    return patch.object(local, "CONTEXT", _Context())
