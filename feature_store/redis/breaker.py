"""When to stop asking a server that does not answer."""

from __future__ import annotations

from collections.abc import Callable

OPENS_AFTER_S = 0.2
LEAST_FAILURES = 3


class Breaker:
    """Opens once nothing has succeeded for a while; any success closes it.

    A pause of the server shorter than ``OPENS_AFTER_S`` costs the requests that it hit and no
    others, however many failed at once.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._failing_since = 0.0
        self.open = False

    def succeeded(self) -> None:
        self._failures, self.open = 0, False

    def failed(self) -> bool:
        """Count a failure; whether this one opens the breaker."""
        now = self._clock()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        opens = (
            not self.open
            and self._failures >= LEAST_FAILURES
            and now - self._failing_since >= OPENS_AFTER_S
        )
        self.open = self.open or opens
        return opens
