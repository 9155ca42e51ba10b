"""Free ports for servers that are told theirs."""

from __future__ import annotations

import os
import random
import socket

# Below what the system gives to outgoing connections (32,768 and up), or one of those could take
# the port between the choice and the server's start; so is Redis's cluster bus, 10,000 above.
FIRST, LAST, BUS = 11_000, 22_000, 10_000
WORKERS = 8  # of pytest-xdist at most, for whose numbers ports are set apart
_choose = random.SystemRandom()
_given = set[int]()  # by this process; servers may not have taken them yet


def free_port() -> int:
    """Choose a port of 127.0.0.1 that is free for a server and, 10,000 above, for Redis's cluster
    bus, and that no earlier call of this process or of a neighbouring worker of the tests gave."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    step, place = (WORKERS, int(worker) % WORKERS) if worker.isdecimal() else (1, 0)
    while True:
        if len(_given) > (LAST - FIRST) // step // 2:
            _given.clear()
        port = _choose.randrange(FIRST + place, LAST, step)
        if port not in _given and _free(port) and _free(port + BUS):
            _given.add(port)
            return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
