"""``workers=N``: the supervisor accepts every connection and hands it over to one of N workers.

A connection goes to the ready worker with the fewest, which spreads long-lived ones evenly, and to
none that is still loading or has died. A worker that ends is replaced. One that answers no pings
gets no connections, those it has not read go to others, and after a while it is killed. The
supervisor reads no byte of a connection and knows no model.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import socket
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic

from service.items.table_lock import STORES_IN_ORDER
from service.observability.background import begin, keep
from service.observability.logs import logger
from service.processes.channel import Channel, MessageType, WorkerArgs, socket_pair
from service.processes.parent import end_with_parent
from service.processes.signals import ShutdownSignals
from service.processes.worker_handle import WorkerHandle
from service.server.descriptors import LIMITED, fitted
from service.server.listener import Listener, listen, poll_until, url_of
from service.settings import PREFIX, Settings

CHECK_EVERY_S = 0.1
PROVED_S = 1.0  # ready for so long, a worker is restarted at once
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # restart back-off
WAS_READY_WAIT_S = 2.0  # maximum restart back-off for a worker that had been ready
KILL_MARGIN_S = 0.5  # beyond the grace period, which the workers apply themselves


class CannotStart(Exception):
    """The first worker exited before it was ready; it has logged why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"worker failed to start (exit code {code})")
        self.code = code if code > 0 else 1


START_ERRORS = (CannotStart, OSError)  # reported by their awaiter


class Supervisor:
    """Starts workers, replaces them, hands connections over, ends them."""

    def __init__(
        self, settings: Settings, environment: dict[str, str], folder: Path, example: bool
    ) -> None:
        """``environment`` has the workers' settings. OSError: a port is not available."""
        self._settings, self._environment, self._folder = settings, environment, folder
        self._example = example
        self._workers: dict[int, WorkerHandle] = {}
        self._stop = ShutdownSignals(self._kill)
        service = listen(settings.host, settings.port, f"{PREFIX}PORT")
        admin = listen(settings.admin_host, settings.admin_port, f"{PREFIX}ADMIN_PORT")
        self._url, self._admin_url = url_of(service), url_of(admin)
        self._listeners = [
            Listener(service, partial(self._on_connection, MessageType.SERVICE)),
            Listener(admin, partial(self._on_connection, MessageType.ADMIN)),
        ]
        self._waiting = deque[tuple[MessageType, socket.socket]]()
        self._turns = count()
        self._one_is_ready = asyncio.Event()
        self._shut = False  # no more connections are accepted
        self._killed = False  # a worker that starts after this is killed, too

    async def run(self) -> None:
        """Run until a signal, and until every worker has ended and is reaped.

        CannotStart if the first worker does not become ready.
        """
        for listener in self._listeners:
            listener.open()
        logger.info(
            "listening", url=self._url, admin=self._admin_url, workers=self._settings.workers
        )
        stop = begin("supervisor", self._stop.requested.wait())
        checking = keep("supervisor", self._check)
        keeping = begin("supervisor", self._keep_all(), expected=START_ERRORS)
        try:
            await asyncio.wait((keeping, stop), return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                await keeping
            async with asyncio.timeout(self._settings.shutdown_grace_s + KILL_MARGIN_S):
                await self._drain()
                await asyncio.shield(keeping)  # to be awaited further once the workers are killed
        except TimeoutError:
            logger.error("workers killed after the grace period", workers=len(self._workers))
        finally:
            checking.cancel()
            self._kill()
            with suppress(asyncio.CancelledError, CannotStart):
                await keeping

    # Workers

    async def _keep_all(self) -> None:
        """Start the first alone: a fault is reported once, and what it builds is there for all."""
        tasks = [keep("supervisor", partial(self._keep, 0), expected=START_ERRORS)]
        first = begin("supervisor", self._one_is_ready.wait())
        await asyncio.wait((*tasks, first), return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            others = range(1, self._settings.workers)
            more = [partial(self._keep, number) for number in others]
            tasks += [keep("supervisor", one, expected=START_ERRORS) for one in more]
        first.cancel()
        await asyncio.gather(*tasks)

    async def _keep(self, number: int) -> None:
        """Run one worker after the other under this number, until a signal."""
        wait_s, began = 0.0, False
        while not self._stop.requested.is_set():
            try:
                worker = await self._start(number, self._example and number == 0 and not began)
            except OSError as error:  # no memory, no descriptor: the others go on
                if not self._one_is_ready.is_set():
                    raise
                wait_s = min(max(2 * wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
                reason = str(error)
                logger.error("cannot start worker", worker=number, reason=reason, wait_s=wait_s)
                await self._pause(wait_s)
                continue
            try:
                code = await self._end_of(worker)
            except Exception:  # ``keep`` starts another
                worker.kill()
                self._workers.pop(number, None)
                raise
            if self._stop.requested.is_set():
                return
            began = began or worker.ready
            if not self._one_is_ready.is_set():
                raise CannotStart(code)  # later the others go on
            proved = worker.ready and monotonic() - worker.ready_since > PROVED_S
            longest = WAS_READY_WAIT_S if worker.ready else LONGEST_WAIT_S
            wait_s = 0.0 if proved else min(max(2 * wait_s, FIRST_WAIT_S), longest)
            pid = worker.process.pid
            logger.error("worker exited", worker=number, pid=pid, code=code, wait_s=wait_s)
            await self._pause(wait_s)

    async def _pause(self, wait_s: float) -> None:
        """Sleep, or until a signal."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.requested.wait(), wait_s)

    async def _start(self, number: int, example: bool) -> WorkerHandle:
        ours, theirs = socket_pair()
        args = WorkerArgs(
            number=number,
            channel=theirs.fileno(),
            folder=self._folder,
            url=self._url,
            admin_url=self._admin_url,
            example=example,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", "worker", args.model_dump_json()),
                env=self._environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C goes to the supervisor alone
                preexec_fn=partial(end_with_parent, os.getpid()),
            )
        except OSError:
            ours.close()
            theirs.close()
            raise
        return WorkerHandle(number, process, Channel(ours), Channel(theirs))

    async def _end_of(self, worker: WorkerHandle) -> int:
        """Take part of its connections and messages until it exits. Returns its exit code."""
        loop = asyncio.get_running_loop()
        self._workers[worker.number] = worker
        loop.add_reader(worker.channel.end, self._receive, worker)
        if self._killed:
            worker.kill()
        if self._stop.requested.is_set():
            worker.drain()
        if self._shut:
            worker.channel.send(MessageType.LAST)
        self._dispatch_waiting()
        code = await worker.process.wait()
        self._receive(worker)  # its last messages
        loop.remove_reader(worker.channel.end)
        del self._workers[worker.number]
        self._waiting.extend(worker.end())
        self._dispatch_waiting()
        return code

    def _receive(self, worker: WorkerHandle) -> None:
        while True:
            try:
                message = worker.channel.receive()
            except BlockingIOError:
                break
            if message is None:  # never: both ends are open here
                break
            kind, number, _ = message
            match kind:
                case MessageType.PONG:
                    worker.answered()
                case MessageType.ACCEPTING:
                    worker.open = True
                case MessageType.READY:
                    worker.ready, worker.ready_since = True, monotonic()
                    self._one_is_ready.set()
                case MessageType.ACCEPTED:
                    worker.answered()
                    worker.accepted(number)
                case MessageType.RETURNED:
                    self._waiting.extend(worker.returned(number))
                case MessageType.CLOSED:
                    worker.closed = number
                case MessageType.STOPPING:
                    worker.stopping = True
                    worker.channel.send(MessageType.LAST)
        self._dispatch_waiting()

    async def _check(self) -> None:
        """Ping the workers; redistribute the connections of silent ones and kill stuck ones.

        Counts only time in which this process runs: after a stop of all processes, or of the
        machine, workers have as long to answer as before.
        """
        before = monotonic()
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            now = monotonic()
            elapsed_s, before = min(now - before, 2 * CHECK_EVERY_S), now
            for worker in self._workers.values():
                self._receive(worker)
                worker.ping(elapsed_s)
            for worker in self._workers.values():
                if worker.is_stuck:
                    pid = worker.process.pid
                    logger.error("killing a stuck worker", worker=worker.number, pid=pid)
                    worker.kill()
                if worker.is_silent and self._can_do_without(worker):
                    self._waiting.extend(worker.recall())
            self._dispatch_waiting()

    def _can_do_without(self, silent: WorkerHandle) -> bool:
        return any(
            worker.open and worker.ready >= silent.ready and not worker.is_silent
            for worker in self._workers.values()
            if not worker.stopping
        )

    def _kill(self) -> None:
        self._killed = True
        for worker in self._workers.values():
            worker.kill()

    # Connections

    def _on_connection(self, kind: MessageType, connection: socket.socket) -> None:
        self._waiting.append((kind, connection))
        self._dispatch_waiting()

    def _dispatch_waiting(self) -> None:
        """Dispatch what waits while workers take it; the rest waits, the newest in the backlog."""
        while self._waiting and self._dispatch(*self._waiting[0]):
            self._waiting.popleft()
        if self._stop.requested.is_set() and not self._takes_connections:
            while self._waiting:  # no other worker will start
                self._waiting.popleft()[1].close()
        if self._shut:
            return
        for listener in self._listeners:
            if self._waiting:
                listener.pause()
            else:
                listener.open()

    def _dispatch(self, kind: MessageType, connection: socket.socket) -> bool:
        """Prefer ready workers; one that loads answers /livez, and 503 to the rest."""
        there = [one for one in self._workers.values() if one.open and not one.stopping]
        able = [one for one in there if one.ready] or there
        able = [one for one in able if not one.is_silent] or able
        if kind is MessageType.ADMIN:  # one worker, so that a query sees earlier commands
            able.sort(key=lambda worker: worker.number)
        else:
            able.sort(key=lambda worker: (worker.connections, worker.last_used))
        for worker in able:
            if worker.send_connection(kind, connection):
                worker.last_used = next(self._turns)
                return True
        return False

    @property
    def _takes_connections(self) -> bool:
        return any(worker.open for worker in self._workers.values())

    async def _drain(self) -> None:
        """Workers report not ready and go on answering; after the notice, the listeners close.

        Without a worker that takes connections there is nothing to wait for.
        """
        for worker in self._workers.values():
            worker.drain()
        if self._takes_connections and not self._stop.immediate:
            await asyncio.sleep(self._settings.drain_notice_s)
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        await poll_until(lambda: not self._waiting)
        self._shut = True
        for worker in list(self._workers.values()):
            worker.channel.send(MessageType.LAST)


async def supervise(settings: Settings, given: dict[str, str], folder: Path, example: bool) -> None:
    """Serve with several processes. ``given``: settings from options, also for the workers."""
    settings = fitted(settings)
    derived = {"threads": str(settings.engine_threads)}
    derived |= {name: str(getattr(settings, name)) for name in LIMITED}
    tables = settings.table_folder
    if tables is None and STORES_IN_ORDER:
        tables = settings.private / "tables"
    if tables is not None:
        derived["table_folder"] = str(tables.absolute())
    else:
        logger.warning(
            "item tables are not shared between workers: supported on x86 only",
            machine=platform.machine(),
        )
    if settings.console_key is None:  # a session outlives the worker that began it
        derived["console_key"] = secrets.token_hex(32)
    if settings.log_user_key is None:  # one for all, so that a user has one digest
        derived["log_user_key"] = secrets.token_hex(16)
    environment = {
        **os.environ,
        **{f"{PREFIX}{name}".upper(): value for name, value in {**given, **derived}.items()},
    }
    await Supervisor(settings, environment, folder, example).run()
