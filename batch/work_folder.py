"""The folder of what is between input and output: by digest of what it is made of."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from hashlib import sha256
from os.path import realpath
from pathlib import Path

from batch.errors import BatchError
from batch.job import SHORT, Recipe
from batch.options import Options
from batch.remote import is_remote

WORK = "_work"


def refuse_overlap(options: Options) -> None:
    """BatchError if what a run writes would be within its input, and be read as input.
    UnicodeEncodeError if its name is not UTF-8."""
    for name, place in (("--output", options.output), ("--work", options.work)):
        str(place).encode()
        if place is not None and _is_within(str(place), options.input):
            raise BatchError(f"{name} {place}: is within --input {options.input}; give another one")


def _is_within(place: str, source: str) -> bool:
    if is_remote(place) or is_remote(source):
        return f"{place}/".startswith(f"{source.rstrip('/')}/")
    folder = Path(realpath(source))
    return folder.is_dir() and Path(realpath(place)).is_relative_to(folder)


def make_work(options: Options, recipe: Recipe) -> Path:
    """Make the folder of this input, checked so, and of this output: within --work another run's,
    perhaps of another store, is apart. BatchError, OSError."""
    limits = f"{recipe.digest} {options.max_rejects}"
    if options.work is not None:  # else it is the output's own
        limits += f" {options.output if is_remote(options.output) else realpath(options.output)}"
    work = _works(options) / sha256(limits.encode()).hexdigest()[:SHORT]
    try:
        work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BatchError(f"--work {_works(options)}: not a folder; give one") from error
    return work


def remove_work(options: Options, work: Path) -> None:
    """Remove this run's intermediate files; of a folder that was given nothing else."""
    shutil.rmtree(work, ignore_errors=True)
    if options.work is None:
        shutil.rmtree(_works(options), ignore_errors=True)
        if is_remote(options.output):
            with suppress(OSError):  # another run's are there
                _works(options).parent.rmdir()


def _works(options: Options) -> Path:
    """Return the folder of intermediate files; of a remote output it is local."""
    if options.work is not None:
        return options.work
    if is_remote(options.output):
        mark = sha256(options.output.encode()).hexdigest()[:SHORT]
        return Path(tempfile.gettempdir()) / f"qin-batch-{os.geteuid()}" / mark
    return Path(options.output) / WORK
