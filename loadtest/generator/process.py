"""Generator process: sends each request at its scheduled time and records its four clocks.

Started by ``runner`` as ``python -m loadtest.generator.process FOLDER NUMBER``. It prints
``ready`` (or why it is not), reads the start time from standard input (end of input: exit), fills
its rows of the columns and prints one line of JSON. Answers are checked while no request is due.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import orjson

from loadtest.generator.answer_form import AnswerChecker
from loadtest.generator.columns import Bucket, Columns, Reason
from loadtest.generator.config import GeneratorConfig
from loadtest.generator.connection import Connection, State
from loadtest.generator.open_files import raise_soft_limit
from loadtest.generator.poller import LONGEST_WAIT, WRITE, Poller, clock, request_realtime
from loadtest.generator.pool import ConnectionPool
from loadtest.generator.workload import Bank

QUIET = 300e-6  # seconds until the next send that suffice to check an answer
BACKLOG = 512  # unchecked answers; beyond that they are checked at once
GRACE = 2.0  # seconds for answers in flight when the run is stopped
SHED = (429, 503)


class Lane:
    """Connections to one address, and the queue of rows that wait for one."""

    __slots__ = ("pool", "waiting")

    def __init__(self, poller: Poller, config: GeneratorConfig, host: str, port: int) -> None:
        limit = max(1, config.connections // config.generators)
        self.pool = ConnectionPool(poller, host, port, limit, config.keep_alive_s)
        self.waiting: deque[int] = deque()  # attended, without a connection


class Generator:
    """Sends the rows ``number, number + count, …`` of the schedule."""

    def __init__(self, config: GeneratorConfig, bank: Bank, columns: Columns, number: int) -> None:
        self.config, self.bank, self.columns = config, bank, columns
        self._rows = range(number, columns.requests, config.generators)
        self._poller = Poller()
        self._lanes = [
            Lane(self._poller, config, config.host, config.port)
        ]  # by kind; or one for all
        if config.events_host is not None:
            self._lanes.append(Lane(self._poller, config, config.events_host, config.events_port))
        self._checker = AnswerChecker(config, bank, columns, number)
        self._live: OrderedDict[int, Connection | None] = OrderedDict()  # attended, not done
        self._unchecked: deque[tuple[int, bytes, bytes, list[bytes]]] = deque()
        self._memory: list[int] = []  # KiB after each tenth of the requests
        self._start = 0.0
        self._next = 0

    def prepare(self) -> None:
        """Open the first connections and touch every page, before the run."""
        for _ in range(min(self.config.preopen, self.config.connections) // self.config.generators):
            self._lanes[0].pool.open()
        self._events(self._poller.wait(clock() + LONGEST_WAIT))
        self.columns.touch()

    def run(self, start: float) -> None:
        """Send all requests, wait for each answer or its time limit, check the answers."""
        self._start = start
        rows, at = self._rows, self.columns.at
        stop, end = self.config.stop_flag(), len(rows)
        tick, give_up, parent = 0.0, float("inf"), os.getppid()
        while True:
            now = clock()
            for _ in range(8):  # answers are also read within a burst
                if self._next >= end or at[rows[self._next]] + start > now:
                    break
                self._attend(rows[self._next], now)
                self._next += 1
                if self.config.stall_every and self._next % self.config.stall_every == 0:
                    _busy(self.config.stall_s)
                now = clock()
            if now >= tick:
                tick = now + LONGEST_WAIT / 2
                for lane in self._lanes:
                    lane.pool.sweep(now)
                if 10 * self._next >= len(self._memory) * len(rows):
                    self._memory.append(resident_kib())
                if give_up > now + GRACE and (stop[0] or os.getppid() != parent):
                    end, give_up = self._next, now + GRACE
            if now >= give_up:
                self._abandon()
            if self._next >= end and not self._live:
                break
            due = at[rows[self._next]] + start if self._next < end else now + LONGEST_WAIT
            self._expire(now)
            if self._unchecked and (due - now > QUIET or len(self._unchecked) > BACKLOG):
                self._events(self._poller.wait(0))
                self._checker.check(*self._unchecked.popleft())
                continue
            self._events(self._poller.wait(min(due, self._first_deadline(due))))
        while self._unchecked:
            self._checker.check(*self._unchecked.popleft())
        for row in rows[end:]:
            self.columns.reason[row] = Reason.STOPPED
        for lane in self._lanes:
            lane.pool.close()
        self._checker.close()

    # -- sending --------------------------------------------------------------------------

    def _attend(self, row: int, now: float) -> None:
        self.columns.attended[row] = now - self._start
        lane = self._lane(row)
        connection = lane.pool.take(now)
        self._live[row] = connection
        if connection is not None:
            self._send(lane, connection, row)
            return
        lane.waiting.append(row)
        if lane.pool.connecting < len(lane.waiting) and lane.pool.open() is not None:
            self.columns.opened[row] = 1

    def _lane(self, row: int) -> Lane:
        if len(self._lanes) == 1:
            return self._lanes[0]
        return self._lanes[int(self.bank.kind[self.columns.entry[row]])]

    def _send(self, lane: Lane, connection: Connection, row: int) -> None:
        self._live[row] = connection
        self.columns.sent[row] = clock() - self._start
        connection.send(row, self.bank.wire[self.columns.entry[row]])
        if connection.fault:
            self._broken(lane, connection)

    def _offer(self, lane: Lane, connection: Connection) -> None:
        """Use a free connection for a waiting row, or return it to the pool."""
        while lane.waiting:
            row = lane.waiting.popleft()
            if row in self._live:
                self._send(lane, connection, row)
                return
        lane.pool.give(connection, clock())

    # -- receiving ------------------------------------------------------------------------

    def _events(self, ready: list[tuple[int, int]]) -> None:
        for fd, mask in ready:
            for lane in self._lanes:
                connection = lane.pool.all.get(fd)
                if connection is not None:
                    break
            else:
                continue
            if connection.state is State.CONNECTING:
                if lane.pool.established(connection):
                    self._offer(lane, connection)
                else:
                    self._unconnected(lane, connection)
                continue
            if mask & WRITE:
                connection.flush()
            if mask & ~WRITE:
                connection.receive()
            if connection.complete:
                self._answered(lane, connection)
            elif connection.fault:
                self._broken(lane, connection)
        if ready:
            for lane in self._lanes:
                lane.pool.close_retired()

    def _answered(self, lane: Lane, connection: Connection) -> None:
        row, status = connection.request, connection.status
        columns = self.columns
        columns.done[row] = connection.received_at - self._start
        columns.status[row] = status
        del self._live[row]
        if 200 <= status < 300:
            columns.bucket[row] = Bucket.OK
        elif status in SHED:
            columns.bucket[row] = Bucket.SHED
        elif status == 504:
            columns.bucket[row], columns.reason[row] = Bucket.TIMED_OUT, Reason.STATUS_504
        else:
            columns.bucket[row], columns.reason[row] = Bucket.FAILED, Reason.STATUS
        self._unchecked.append((row, connection.version, connection.timing, connection.body))
        if connection.reusable():
            self._offer(lane, connection)
        else:
            lane.pool.discard(connection)

    def _broken(self, lane: Lane, connection: Connection) -> None:
        row = connection.request
        if connection.state is State.BUSY and row in self._live:
            self.columns.done[row] = clock() - self._start
            self._end(row, Bucket.FAILED, connection.fault)
        lane.pool.discard(connection)
        self._open_for_waiting(lane)

    def _unconnected(self, lane: Lane, connection: Connection) -> None:
        lane.pool.discard(connection)
        while lane.waiting:
            row = lane.waiting.popleft()
            if row in self._live:
                self.columns.done[row] = clock() - self._start
                self._end(row, Bucket.FAILED, Reason.CONNECT)
                break
        self._open_for_waiting(lane)

    @staticmethod
    def _open_for_waiting(lane: Lane) -> None:
        if len(lane.waiting) > lane.pool.connecting:
            lane.pool.open()

    # -- giving up ------------------------------------------------------------------------

    def _first_deadline(self, otherwise: float) -> float:
        if not self._live:
            return otherwise
        return float(self.columns.at[next(iter(self._live))]) + self._start + self.config.timeout_s

    def _expire(self, now: float) -> None:
        """End requests past their time limit; the first is the oldest, as rows go by schedule."""
        while self._live and self._first_deadline(now) <= now:
            row, connection = next(iter(self._live.items()))
            lane = self._lane(row)
            if connection is None:
                self._end(row, Bucket.UNSENT, Reason.NO_CONNECTION)
                while lane.waiting and lane.waiting[0] not in self._live:
                    lane.waiting.popleft()
                continue
            self.columns.done[row] = now - self._start
            self._end(row, Bucket.TIMED_OUT, Reason.DEADLINE)
            lane.pool.discard(connection)
            self._open_for_waiting(lane)

    def _abandon(self) -> None:
        """End all requests still in flight when the grace after a stop is over."""
        for row, connection in list(self._live.items()):
            bucket = Bucket.UNSENT if connection is None else Bucket.TIMED_OUT
            self._end(row, bucket, Reason.STOPPED)
        for lane in self._lanes:
            lane.waiting.clear()

    def _end(self, row: int, bucket: Bucket, reason: Reason) -> None:
        self.columns.bucket[row], self.columns.reason[row] = bucket, reason
        del self._live[row]

    def summary(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "versions": self._checker.versions,
            "stages": self._checker.stages,
            "connections_opened": sum(lane.pool.opened for lane in self._lanes),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "memory_kib": self._memory,
        }


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def _busy(seconds: float) -> None:
    """Block the process: the self-check's late generator."""
    until = clock() + seconds
    while clock() < until:
        pass


def main(folder: Path, number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops generators by the flag
    config = GeneratorConfig.read(folder)
    if config.cores:
        core = config.cores[number % len(config.cores)]
        try:
            os.sched_setaffinity(0, {core})
        except (OSError, ValueError):
            print(f"core {core}: not one that this process may use", flush=True)
            return
    lanes = 1 if config.events_host is None else 2
    raise_soft_limit(lanes * max(1, config.connections // config.generators))
    request_realtime()
    generator = Generator(config, Bank.read(folder), config.columns(), number)
    generator.prepare()
    gc.collect()
    gc.disable()
    gc.freeze()
    print("ready", flush=True)
    line = sys.stdin.readline()
    if line:
        generator.run(float(line))
        print(orjson.dumps(generator.summary()).decode(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
