"""Runs ``fit`` in processes of their own, which are killed (SIGKILL) while they train."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from safetensors.torch import load_file

from text.corpus.corpus import Corpus
from text.encoder.checkpoint import WEIGHTS
from text.encoder.fit import STATE, fit
from text.encoder.recipe import Recipe

CONTEXT = multiprocessing.get_context("forkserver")
# Imported once for all processes; the optimiser imports torch._dynamo when it is made.
CONTEXT.set_forkserver_preload(["text.encoder.fit", "torch._dynamo"])
ENDS_S = 300.0


STAGES = ("masked", "pairs", "multi_task")


@dataclass(frozen=True)
class Kill:
    """A process's first and last step, with their stages; ``is_saving``: killed within a save."""

    first: tuple[str, int]
    last: tuple[str, int]
    is_saving: bool


@dataclass(frozen=True)
class Runs:
    """Runs of one recipe on one corpus."""

    corpus: Path
    recipe: Recipe
    threads: int = 1

    def whole(self, out: Path) -> None:
        """Train without a kill, or to the end after kills."""
        code, _ = self._run(out, None, 0.0)
        assert code == 0

    def kill(self, out: Path, stage: str, step: int, delay_s: float) -> Kill:
        """Train in a process that is killed a while after a step of a stage."""
        code, steps = self._run(out, (stage, step), delay_s)
        assert code == -signal.SIGKILL
        state = out.with_name(f".{out.name}.run") / STATE
        return Kill(steps[0], steps[-1], state.with_name(f"{STATE}.new").exists())

    def _run(
        self, out: Path, killed_at: tuple[str, int] | None, delay_s: float
    ) -> tuple[int | None, list[tuple[str, int]]]:
        """Return exit code and steps done."""
        progress, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_fit, args=(self, out, killed_at, delay_s, sender))
        process.start()
        sender.close()  # the child's end is the last one: reading ends with the child
        with progress:
            steps = list(_received(progress))
        process.join(ENDS_S)
        return process.exitcode, [(name, done) for name, done in steps if name in STAGES]


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints have the same tensors, bit by bit."""
    first, second = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def _fit(
    runs: Runs, out: Path, killed_at: tuple[str, int] | None, delay_s: float, progress: Connection
) -> None:
    torch.set_num_threads(runs.threads)

    def on_progress(name: str, done: int, total: int) -> None:
        progress.send((name, done))
        if (name, done) == killed_at:
            threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

    fit(Corpus.open(runs.corpus), runs.recipe, out, on_progress, save_seconds=0)


def _received(progress: Connection) -> Iterator[tuple[str, int]]:
    with suppress(EOFError, OSError):  # OSError: killed while it sent
        while True:
            yield progress.recv()
