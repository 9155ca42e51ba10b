"""Runs the load test as a child process against this service, one at a time, for a bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.access.hosts import authority
from service.console.load_folder import OUTPUT, LoadFolder, Plan, begun, ended, wants_stop
from service.console.some_users import some_users
from service.errors import Conflict
from service.observability.background import begin
from service.settings import PREFIX, api_keys, reached_at
from service.state import ServiceState

MOST_ITEMS = 10_000  # ids that requests draw from
MOST_USERS = 1000
USERS_S = 2.0  # for finding them
WATCH_S = 0.25
USERS = "users.parquet"
OUTCOMES = {  # by exit code
    0: "done: the target is met",
    1: "done: the target is missed, or not shown to be met",
    2: "done: the run is invalid",
}


class LoadRuns:
    """Starts and watches the load tests that this process runs."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self.folder = LoadFolder(state.settings.private / "load")

    async def start(self, plan: Plan, who: str) -> None:
        """Start a load test. Conflict while one runs, or where it cannot start."""
        if self._state.settings.port == 0:
            raise Conflict(f"{PREFIX}PORT is 0: the console does not know the service's port")
        try:
            found = await asyncio.to_thread(self.folder.begin, plan, who)
        except OSError as error:
            raise Conflict(f"the load test could not start: {error}") from error
        if found is None:
            raise Conflict("a load test is running; stop it first")
        folder, lock = found
        try:
            process = await self._child(plan, folder, lock)
            await asyncio.to_thread(begun, folder, process.pid)
        except OSError as error:
            await asyncio.to_thread(ended, folder, f"could not start: {error.strerror}")
            os.close(lock)
            raise Conflict(f"the load test could not start: {error.strerror}") from error
        begin("console", self._watch(plan, folder, lock, process))

    async def _child(self, plan: Plan, folder: Path, lock: int) -> asyncio.subprocess.Process:
        """Begin the child process, which holds the lock, too."""
        await asyncio.to_thread(self._write_items, folder)
        await self._write_users(folder)
        with (folder / OUTPUT).open("wb") as output:
            return await asyncio.create_subprocess_exec(
                *self._command(plan, folder),
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )

    def _write_items(self, folder: Path) -> None:
        """Write ids of items to ask for."""
        active = self._state.registry.active
        ids = active.table.ids() if active is not None else np.empty(0, np.int64)
        if len(ids) > MOST_ITEMS:
            ids = np.random.default_rng().choice(ids, MOST_ITEMS, replace=False)
        pq.write_table(pa.table({"item_id": ids}), folder / "items.parquet")

    async def _write_users(self, folder: Path) -> None:
        """Write ids of users with a history; no file where none is found."""
        store = self._state.store
        found = await some_users(store, MOST_USERS, USERS_S)
        ids = pa.array(found if store.text_ids is not None else list(map(int, found)))
        if found:
            await asyncio.to_thread(pq.write_table, pa.table({"user_id": ids}), folder / USERS)

    def _command(self, plan: Plan, folder: Path) -> list[str]:
        settings = self._state.settings
        url = f"http://{authority(reached_at(settings.host))}:{settings.port}"
        options = {
            "--rate": f"{plan.rate:g}",
            "--duration": f"{plan.seconds}s",
            "--candidates": str(plan.candidates),
            "--items": f"{folder / 'items.parquet'}:item_id",
            "--slo": f"p99={settings.target_ms:g}ms",
            "--out": str(folder),
        }
        if (folder / USERS).exists():
            options["--users"] = f"{folder / USERS}:user_id"
        pairs = [word for pair in options.items() for word in pair]
        own = ["--allow-remote"]  # it is the service's own address
        return [sys.executable, "-m", "loadtest", plan.kind, url, *pairs, *own]

    def _environment(self) -> dict[str, str]:
        """This process's, without the service's settings, which hold secrets."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        keys = api_keys(self._state.settings.api_keys)
        key = {"QIN_API_KEY": keys[0][1]} if keys else {}
        return {**kept, "NO_COLOR": "1", "COLUMNS": "160", **key}

    async def _watch(
        self, plan: Plan, folder: Path, lock: int, process: asyncio.subprocess.Process
    ) -> None:
        """Bound its time; a person's wish or a stop of the service ends it."""
        outcome, deadline = None, monotonic() + plan.limit_s
        try:
            while process.returncode is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), WATCH_S)
                if process.returncode is not None:
                    break
                if outcome is None and await asyncio.to_thread(wants_stop, folder):
                    outcome = "stopped"
                    _signal(process, signal.SIGTERM)
                if monotonic() > deadline:
                    outcome = outcome or f"ended after {plan.limit_s:.0f} s"
                    _signal(process, signal.SIGKILL)
                if self._state.readiness.draining:
                    outcome = "ended, because the service stops"
                    _signal(process, signal.SIGKILL)
        finally:
            _signal(process, signal.SIGKILL)  # generators that it left
            code = process.returncode
            try:
                ended(folder, outcome or OUTCOMES.get(code or 0, f"failed (exit code {code})"))
            finally:
                os.close(lock)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To all of its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
