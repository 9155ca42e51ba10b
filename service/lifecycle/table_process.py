"""Starts the process that fills an item table (``table_child``), and waits for it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

from feature_store.errors import StoreError
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, NotYet
from service.artifacts import sandbox
from service.items.own_file import OwnFile
from service.items.shared_file import TableFile
from service.items.table_fill import Filled
from service.settings import Settings

LOOK_EVERY_S = 0.1
PIECE = 1 << 16


class TableNotFilled(NotYet):
    """An item table cannot be made or filled now: the version may be loaded later."""


@dataclass(frozen=True, slots=True)
class TableProcess:
    """One run of the child. All but ``start`` may be called in a thread of low priority."""

    bundle: Bundle
    child: subprocess.Popen[bytes]
    stall_s: float
    memory_mb: int

    @classmethod
    def start(
        cls, bundle: Bundle, file: TableFile | OwnFile, settings: Settings, niceness: int
    ) -> TableProcess:
        """Start it. Call this from a thread of normal priority: see ``sandbox.start``. It ends with
        that thread at the latest."""
        descriptor, *_ = file.descriptors
        job = {
            "bundle": str(bundle.path),
            "store": settings.store,
            "descriptor": descriptor,
            "capacity": file.capacity,
        }
        memory = sandbox.memory_limit(bundle, settings.inspection_memory_mb << 20)
        child = sandbox.start_python(
            "service.lifecycle.table_child",
            (memory, niceness),
            stdin=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=file.descriptors,
        )
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as stdin:
            stdin.write(orjson.dumps(job) + b"\n")
        return cls(bundle, child, settings.fill_stall_s, settings.inspection_memory_mb)

    def wait(self, advance: Callable[[int], None]) -> Filled:
        """Wait for its end. StoreError, BundleError, or TableNotFilled if it crashes or stalls.

        ``advance`` is called with the items read since the last call, often with 0; what it raises
        ends the child.
        """
        done, last = 0, b""
        try:
            for line in self._lines(advance):
                try:
                    said: dict[str, Any] = _message(line)
                except ValueError:  # what a library or a crash writes
                    last = line or last
                    continue
                if "filled" in said:
                    return Filled(**said["filled"])
                if "fault" in said:
                    raise self._fault(said["fault"], said["reason"])
                advance(said["done"] - done)
                done = said["done"]
        finally:
            self.child.kill()
            self.child.wait()
            if self.child.stdout is not None:
                self.child.stdout.close()
        raise TableNotFilled(
            f"{self.bundle.path}: the process that filled its item table ended after {done:,} "
            f"items ({_ending(self.child.returncode)}): {last.decode(errors='replace')[:300]}; "
            "if memory was short (the system's log says so), make room; then load it again"
        )

    def _lines(self, advance: Callable[[int], None]) -> Iterator[bytes]:
        """Yield what it says, up to its end. TableNotFilled if it says nothing for too long."""
        stream = self.child.stdout
        assert stream is not None
        with selectors.PollSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            heard, rest = monotonic(), b""
            while True:
                if not selector.select(LOOK_EVERY_S):
                    advance(0)
                    if monotonic() - heard > self.stall_s:
                        raise TableNotFilled(
                            f"{self.bundle.path}: the process that fills its item table made no "
                            f"progress for {self.stall_s:g} s (QIN_FILL_STALL_S): it is stopped, "
                            "or has no processor time; load it again when it has"
                        )
                    continue
                piece = os.read(stream.fileno(), PIECE)
                if not piece:
                    return
                heard, (*lines, rest) = monotonic(), (rest + piece).split(b"\n")
                yield from lines

    def _fault(self, kind: str, reason: str) -> StoreError | BundleError:
        match kind:
            case "store":
                return StoreError(reason)
            case "bundle":
                return BundleError(reason)
            case "memory":
                return TableNotFilled(
                    f"{self.bundle.path}: filling its item table takes more memory than "
                    f"QIN_INSPECTION_MEMORY_MB={self.memory_mb} allows: raise it"
                )
            case _:
                return TableNotFilled(f"{self.bundle.path}: filling its item table: {reason}")


def _message(line: bytes) -> dict[str, Any]:
    """Read a line of JSON. ValueError if it is no object."""
    found = orjson.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"no object: {line!r}")
    return found


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
