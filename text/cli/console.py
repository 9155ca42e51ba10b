"""Options, messages and progress bars that the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feature_store.wording import with_file
from text.corpus.errors import CorpusError
from training.cli.console import AsJson, fail, progress, screen

__all__ = ["AsJson", "exit_on_error", "fail", "progress", "screen"]


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an expected error as one line and exit with code 1."""
    try:
        yield
    except CorpusError as error:
        fail(str(error))
    except OSError as error:
        fail(with_file(error))
