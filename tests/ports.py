"""Free ports for servers that are told theirs."""

from __future__ import annotations

import random
import socket

# Below what the system gives to outgoing connections (32,768 and up), or one of those could take
# the port between the choice and the server's start; so is Redis's cluster bus, 10,000 above.
FIRST, LAST, BUS = 11_000, 22_000, 10_000
_choose = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 free for a server and, 10,000 above, for Redis's cluster bus."""
    while True:
        port = _choose.randrange(FIRST, LAST)
        if _free(port) and _free(port + BUS):
            return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
