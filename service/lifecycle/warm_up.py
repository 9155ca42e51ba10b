"""The sizes of recent requests, so that a new version meets them before it is asked."""

from __future__ import annotations

from collections import deque

KEPT = 2048
TRIED = 12


class RecentShapes:
    """(candidates, history items) of the latest requests. Written on the event loop."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=KEPT)

    def note(self, candidates: int, history: int) -> None:
        self._seen.append((candidates, history))

    def typical(self, longest_history: int, chunk: int) -> list[tuple[int, int]]:
        """At most a dozen, from the smallest to the largest seen; without traffic, a guess."""
        seen = sorted(set(self._seen.copy()))
        if not seen:
            lengths = (0, 1, longest_history)
            return [(rows, length) for length in lengths for rows in (1, 64, chunk)]
        last = len(seen) - 1
        places = sorted({round(last * i / (TRIED - 1)) for i in range(TRIED)})
        return [seen[place] for place in places]
