"""Shared by the commands: errors and signals as one line."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import typer

from batch.progress import Progress
from batch.wording import EXPECTED, worded_fault
from service.observability.logs import configure

ENDING = (signal.SIGTERM, signal.SIGHUP)  # SIGINT is Python's own
BY_SIGNAL = 128  # exit codes of a shell: and the signal's number


class Ended(BaseException):
    """A signal asks the process to end."""


@contextmanager
def refusals(progress: Progress | None = None) -> Iterator[None]:
    """Print expected errors as one line on stderr and exit with code 1; likewise the end by a
    signal, with its code, after what is under way was cleaned up."""
    configure("auto", "warning")
    code = 1
    try:
        with _signals_raised():
            yield
        return
    except EXPECTED as error:
        line = worded_fault(error)
    except (KeyboardInterrupt, Ended) as error:
        number = error.args[0] if isinstance(error, Ended) else signal.SIGINT
        line, code = f"ended by {signal.Signals(number).name}", BY_SIGNAL + number
    if progress is not None:
        with suppress(OSError):
            progress.event("failed", {"error": line})
    typer.echo(f"error: {line}", err=True)
    raise typer.Exit(code)


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise Ended for the first signal of ``ENDING``; ignore others meanwhile."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
