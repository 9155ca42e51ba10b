"""Puts items with texts at a steady rate, from a process of its own.

``python -m tests.service.item_writer PORT FIRST [--score]``, until its input ends; then it prints
``Writes`` as JSON. In one interpreter, writers would delay the requests of a generator of scores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import httpx
import numpy as np
import orjson

from tests.text import small

WRITES = 20  # a second
REFUSALS = (429, 503)
AT_ONCE = 4  # writers, so that one that is late delays no other
REST = {"item_id": 7, "item_tags": [3], "likes_level": 2, "views_level": 1}


def title(random: np.random.Generator) -> str:
    return " ".join(random.choice(small.WORDS, random.integers(4, 13)))


@dataclass(slots=True)
class Writes:
    """What became of the writes; ``seconds`` of those done run from when they were due."""

    seconds: list[float] = field(default_factory=list)
    due: int = 0
    refused: int = 0  # 429 or 503
    failed: int = 0
    faults: list[str] = field(default_factory=list)  # the first answers that failed

    def count(self, put: httpx.Response, scored: httpx.Response | None, took: float) -> None:
        """Count a write by its answer and, if it is scored, that of the score of its item."""
        last = scored if scored is not None else put
        known = scored is None or (last.is_success and last.json()["scores"][0] is not None)
        if last.status_code in REFUSALS:
            self.refused += 1
        elif put.status_code == 200 and known:
            self.seconds.append(took)
        else:
            self.failed += 1
            if len(self.faults) < 3:
                self.faults.append(f"{last.status_code} {last.text[:200]}")

    def end(self, seconds: float) -> None:
        """Set how many were due in these seconds, of which writers that are late send fewer."""
        self.due = ceil(seconds * WRITES)

    def row(self) -> dict[str, Any]:
        done = len(self.seconds)
        sent = done + self.refused + self.failed
        row: dict[str, Any] = {"due": self.due, "done": done, "refused": self.refused}
        row |= {"failed": self.failed, "not_sent": max(0, self.due - sent), "faults": self.faults}
        return row | (percentiles(self.seconds) if done else {})


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(1e3 * float(np.percentile(seconds, q)), 2) for q in (50, 99)}


def connected(url: str) -> list[httpx.Client]:
    """Make the writers' clients and connect them, which takes as long as many writes."""
    clients = [httpx.Client(base_url=url, timeout=60, trust_env=False) for _ in range(AT_ONCE)]
    for client in clients:
        client.get("/livez")
    return clients


def write(clients: list[httpx.Client], first: int, stop: threading.Event, *, score: bool) -> Writes:
    """Put new items with a text, WRITES a second in all, until ``stop``; ``score`` each."""
    found, lock, began = Writes(), threading.Lock(), time.perf_counter()

    def work(writer: int) -> None:
        random = np.random.default_rng(first + writer)
        client = clients[writer]
        for number in range(writer, 10**6, AT_ONCE):
            due = began + number / WRITES
            if stop.wait(max(0.0, due - time.perf_counter())):
                return
            item, values = first + number, {**REST, "text": {"de": title(random)}}
            put, scored = client.put(f"/v1/items/{item}", json=values), None
            if score and put.status_code == 200:
                body = {"user_id": 1, "candidates": [item]}
                scored = client.post("/v1/score", json=body)
            with lock:
                found.count(put, scored, time.perf_counter() - due)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    stop.wait()
    found.end(time.perf_counter() - began)
    for thread in threads:
        thread.join()
    return found


@contextmanager
def writing(port: int, first: int, *, score: bool = False) -> Iterator[Writes]:
    """Within the block, put items from another process; what became of them, at its end."""
    found = Writes()
    words = [sys.executable, "-m", "tests.service.item_writer", str(port), str(first)]
    words += ["--score"] if score else []
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        child.stdout.readline()  # it has begun
        yield found
    finally:
        out, _ = child.communicate()
    for name, value in orjson.loads(out).items():
        setattr(found, name, value)


def main() -> None:
    port, first, *more = sys.argv[1:]
    os.nice(1)  # the generator of scores goes first
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    clients = connected(f"http://127.0.0.1:{port}")
    print(flush=True)
    found = write(clients, int(first), stop, score="--score" in more)
    print(orjson.dumps(found).decode(), flush=True)


if __name__ == "__main__":
    main()
