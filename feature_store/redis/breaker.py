"""Circuit breaker for one server."""

from __future__ import annotations

from collections.abc import Callable

OPENS_AFTER_S = 0.2
LEAST_FAILURES = 3


class Breaker:
    """Opens after failures without a success for ``OPENS_AFTER_S``; any success closes it.

    A shorter pause of the server fails only the requests sent during it, however many.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._failing_since = 0.0
        self.open = False

    def succeeded(self) -> None:
        self._failures, self.open = 0, False

    def failed(self) -> bool:
        """Count a failure; return whether it opens the breaker."""
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
