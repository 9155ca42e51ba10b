"""``workers=N``: a supervisor that accepts every connection and hands it to one of N workers.

Each new connection goes to the ready worker that has the fewest, so that connections that stay
open are spread evenly; none goes to a worker that is still loading or has died. A worker that ends
is replaced, and one that answers no pings is ended: until then it gets no connection, and those it
has not read go to others. The supervisor reads no byte of a connection and knows no model.
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
from service.processes.channel import Line, Post, Word, pair
from service.processes.parent import end_with_parent
from service.processes.signals import StopSignals
from service.processes.worker_handle import Colleague
from service.server.descriptors import LIMITED, fitted
from service.server.listener import Door, listen, url_of
from service.server.polling import until
from service.settings import PREFIX, Settings

LOOK_EVERY_S = 0.1
PROVED_S = 1.0  # that a worker was ready, after which its end is no reason to wait
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # before another attempt to start one
WAS_READY_WAIT_S = 2.0  # at most, after one that could answer: it is missed
KILL_MARGIN_S = 0.5  # beyond the grace time, which the workers keep themselves


class CannotStart(Exception):
    """The first worker ended before it was ready; it has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker could not start (exit {code})")
        self.code = code if code > 0 else 1


ENDS = (CannotStart, OSError)  # of a start; their awaiter tells them


class Supervisor:
    """Starts the workers, replaces them, hands them their connections, ends them."""

    def __init__(
        self, settings: Settings, environment: dict[str, str], folder: Path, example: bool
    ) -> None:
        """``environment`` has the settings for the workers. OSError: a port cannot be had."""
        self._settings, self._environment, self._folder = settings, environment, folder
        self._example = example
        self._workers: dict[int, Colleague] = {}
        self._stop = StopSignals(self._kill)
        service = listen(settings.host, settings.port, f"{PREFIX}PORT")
        admin = listen(settings.admin_host, settings.admin_port, f"{PREFIX}ADMIN_PORT")
        self._url, self._admin_url = url_of(service), url_of(admin)
        self._doors = [
            Door(service, lambda connection: self._enter(Word.SERVICE, connection)),
            Door(admin, lambda connection: self._enter(Word.ADMIN, connection)),
        ]
        self._waiting: deque[tuple[Word, socket.socket]] = deque()  # no worker could take them
        self._turns = count()
        self._one_is_ready = asyncio.Event()
        self._shut = False  # no more connections come

    async def run(self) -> None:
        """Until told to stop. CannotStart unless the first worker comes up."""
        for door in self._doors:
            door.open()
        logger.info(
            "listening", url=self._url, admin=self._admin_url, workers=self._settings.workers
        )
        told = begin("supervisor", self._stop.told.wait())
        looking = keep("supervisor", self._look)
        keeping = begin("supervisor", self._keep_all(), expected=ENDS)
        try:
            await asyncio.wait((keeping, told), return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                await keeping
            async with asyncio.timeout(self._settings.shutdown_grace_s + KILL_MARGIN_S):
                await self._drain()
                await keeping
        except TimeoutError:
            logger.error("workers ended by force", workers=len(self._workers))
        finally:
            looking.cancel()
            self._kill()
            with suppress(asyncio.CancelledError, CannotStart):
                await keeping

    # Workers

    async def _keep_all(self) -> None:
        """The first one alone: what it finds wrong is said once, what it makes is there for all."""
        tasks = [keep("supervisor", partial(self._keep, 0), expected=ENDS)]
        first = begin("supervisor", self._one_is_ready.wait())
        await asyncio.wait((*tasks, first), return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            others = range(1, self._settings.workers)
            tasks += [keep("supervisor", partial(self._keep, n), expected=ENDS) for n in others]
        first.cancel()
        await asyncio.gather(*tasks)

    async def _keep(self, number: int) -> None:
        """One process after the other in this place, until told to stop."""
        wait_s, began = 0.0, False
        while not self._stop.told.is_set():
            try:
                worker = await self._start(number, self._example and number == 0 and not began)
            except OSError as error:  # no memory, no descriptor: the others go on answering
                if not self._one_is_ready.is_set():
                    raise
                wait_s = min(max(2 * wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
                reason = str(error)
                logger.error("no worker was started", worker=number, reason=reason, wait_s=wait_s)
                await self._pause(wait_s)
                continue
            try:
                code = await self._end_of(worker)
            except Exception:  # another takes its place, by the guard
                worker.kill()
                self._workers.pop(number, None)
                raise
            if self._stop.told.is_set():
                return
            began = began or worker.ready
            if not self._one_is_ready.is_set():
                raise CannotStart(code)  # later the others go on answering
            proved = worker.ready and monotonic() - worker.ready_since > PROVED_S
            longest = WAS_READY_WAIT_S if worker.ready else LONGEST_WAIT_S
            wait_s = 0.0 if proved else min(max(2 * wait_s, FIRST_WAIT_S), longest)
            pid = worker.process.pid
            logger.error("a worker ended", worker=number, pid=pid, code=code, wait_s=wait_s)
            await self._pause(wait_s)

    async def _pause(self, wait_s: float) -> None:
        """So long, or until told to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.told.wait(), wait_s)

    async def _start(self, number: int, example: bool) -> Colleague:
        ours, theirs = pair()
        post = Post(
            number=number,
            line=theirs.fileno(),
            folder=self._folder,
            url=self._url,
            example=example,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", "worker", post.model_dump_json()),
                env=self._environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C is for us alone to pass on
                preexec_fn=partial(end_with_parent, os.getpid()),
            )
        except OSError:
            ours.close()
            theirs.close()
            raise
        return Colleague(number, process, Line(ours), Line(theirs))

    async def _end_of(self, worker: Colleague) -> int:
        """Its exit code. Until then it is one of us."""
        loop = asyncio.get_running_loop()
        self._workers[worker.number] = worker
        loop.add_reader(worker.line.end, self._hear, worker)
        if self._stop.told.is_set():
            worker.line.say(Word.NOTICE)
        if self._shut:
            worker.line.say(Word.LAST)
        self._hand_waiting()
        code = await worker.process.wait()
        self._hear(worker)  # what it took before it ended
        loop.remove_reader(worker.line.end)
        del self._workers[worker.number]
        self._waiting.extend(worker.end())
        self._hand_waiting()
        return code

    def _hear(self, worker: Colleague) -> None:
        while True:
            try:
                heard = worker.line.hear()
            except BlockingIOError:
                break
            if heard is None:  # never: both ends of the line are open here
                break
            word, number, _ = heard
            match word:
                case Word.PONG:
                    worker.answered()
                case Word.OPEN:
                    worker.open = True
                case Word.READY:
                    worker.ready, worker.ready_since = True, monotonic()
                    self._one_is_ready.set()
                case Word.TAKEN:
                    worker.answered()
                    worker.taken(number)
                case Word.BACK:
                    self._waiting.extend(worker.back(number))
                case Word.LEFT:
                    worker.left = number
                case Word.LEAVING:
                    worker.leaving = True
                    worker.line.say(Word.LAST)
        self._hand_waiting()

    async def _look(self) -> None:
        """Ping the workers, and do without those that do not answer.

        Only time in which this process runs is counted: where it was stopped together with its
        workers, or the machine was, they have as long to answer as before.
        """
        before = monotonic()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = monotonic()
            elapsed_s, before = min(now - before, 2 * LOOK_EVERY_S), now
            for worker in self._workers.values():
                self._hear(worker)
                worker.ping(elapsed_s)
            for worker in self._workers.values():
                if worker.is_stuck:
                    logger.error("a worker is stuck", worker=worker.number, pid=worker.process.pid)
                    worker.kill()
                if worker.is_silent and self._can_do_without(worker):
                    self._waiting.extend(worker.recall())
            self._hand_waiting()

    def _can_do_without(self, silent: Colleague) -> bool:
        return any(
            worker.open and worker.ready >= silent.ready and not worker.is_silent
            for worker in self._workers.values()
            if not worker.leaving
        )

    def _kill(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    # Connections

    def _enter(self, word: Word, connection: socket.socket) -> None:
        self._waiting.append((word, connection))
        self._hand_waiting()

    def _hand_waiting(self) -> None:
        """While somebody takes them. Otherwise they wait, the newest in the system's queue."""
        while self._waiting and self._hand(*self._waiting[0]):
            self._waiting.popleft()
        if self._shut:
            return
        for door in self._doors:
            if self._waiting:
                door.pause()
            else:
                door.open()

    def _hand(self, word: Word, connection: socket.socket) -> bool:
        """A worker that loads is better than none: it answers /livez, and 503 to the rest."""
        there = [one for one in self._workers.values() if one.open and not one.leaving]
        able = [one for one in there if one.ready] or there
        able = [one for one in able if not one.is_silent] or able
        if word is Word.ADMIN:  # one of them, so that what was told is known to who is asked
            able.sort(key=lambda worker: worker.number)
        else:
            able.sort(key=lambda worker: (worker.connections, worker.turn))
        for worker in able:
            if worker.hand(word, connection):
                worker.turn = next(self._turns)
                return True
        return False

    async def _drain(self) -> None:
        """Workers say that they stop and go on answering; then the doors close behind the last."""
        for worker in self._workers.values():
            worker.line.say(Word.NOTICE)
        if not self._stop.hurried:
            await asyncio.sleep(self._settings.drain_notice_s)
        await asyncio.gather(*(door.close() for door in self._doors))
        await until(lambda: not self._waiting)
        self._shut = True
        for worker in list(self._workers.values()):
            worker.line.say(Word.LAST)


async def supervise(settings: Settings, given: dict[str, str], folder: Path, example: bool) -> None:
    """Serve with several processes. ``given``: settings from options, for the workers as well."""
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
            "every worker has an item table of its own: tables are shared on x86 alone",
            machine=platform.machine(),
        )
    if settings.log_user_key is None:  # one for all, so that a user has one digest
        derived["log_user_key"] = secrets.token_hex(16)
    environment = {
        **os.environ,
        **{f"{PREFIX}{name}".upper(): value for name, value in {**given, **derived}.items()},
    }
    await Supervisor(settings, environment, folder, example).run()
