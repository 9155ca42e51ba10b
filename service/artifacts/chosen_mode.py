"""Remembers, beside a bundle's local copy, the mode that was measured to be the fastest here.

The workers of a service, and a restarted one, serve the same mode: it is measured once per machine.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from model_export.bundle import openvino, plain_files
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.modes import Choice
from model_export.bundle.processor import processor
from model_export.bundle.sessions import ProviderChoice
from service.artifacts.persisted_state import as_json, write_durably
from service.artifacts.sandbox import MACHINE
from service.observability.logs import logger

MOST_BYTES = 1 << 16
CHOICE = TypeAdapter(Choice)


class _Remembered(BaseModel):
    """The content of ``mode-PROVIDER.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    rows: int
    choice: Choice


def recall(bundle: Bundle, provider: ProviderChoice, rows: int) -> Choice | None:
    """Return the choice made here before; None if there is none for this machine."""
    try:
        found = _Remembered.model_validate_json(
            plain_files.read(_file(bundle, provider), MOST_BYTES)
        )
    except (OSError, BundleError, ValidationError):  # missing or damaged: it is measured again
        return None
    return found.choice if (found.machine, found.rows) == (machine(), rows) else None


def note(bundle: Bundle, provider: ProviderChoice, rows: int, choice: Choice) -> None:
    """Remember a choice, durably. Where that fails, a log line says so."""
    kept = _Remembered(machine=machine(), rows=rows, choice=choice)
    try:
        write_durably(_file(bundle, provider), as_json(kept.model_dump(mode="json")))
    except BundleError as error:
        logger.warning(
            "mode not remembered: each process measures it at each start",
            model_version=bundle.version,
            reason=str(error),
        )


@contextmanager
def measuring(bundle: Bundle) -> Iterator[bool]:
    """Whether this process is to measure: False while another one does.

    Where the folder cannot be written, each process measures for itself.
    """
    file = bundle.path.parent / "mode.lock"
    try:
        lock = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:
        yield True
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(lock)


def machine() -> str:
    """What a measurement depends on: onnxruntime, the plugin, and the processor's kind."""
    runtime, plugin = MACHINE.decode().strip(), openvino.release()
    return f"{runtime}; openvino plugin {plugin}; processor {processor().digest}"


def _file(bundle: Bundle, provider: ProviderChoice) -> Path:
    return bundle.path.parent / f"mode-{provider}.json"
