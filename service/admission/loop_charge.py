"""A request's charge to the loop's budget."""

from __future__ import annotations

import math

from service.admission.loop_budget import RECEIVED_A_BYTE_S, REFUSAL_S, REFUSED_A_UNIT_S, LoopBudget
from service.errors import OverCapacity

FULL = "the service is busy; try again later"


def over_capacity() -> OverCapacity:
    return OverCapacity(FULL, headers={"Retry-After": "1"})


class Charge:
    """Held while a request's work waits or runs; counts the time that it took."""

    __slots__ = ("_asked", "_budget", "_kind", "_predicted", "_size", "_took", "_within")

    def __init__(self, budget: LoopBudget, kind: str) -> None:
        self._budget, self._kind = budget, kind
        self._size, self._predicted, self._took = 0, 0.0, 0.0
        self._asked = self._within = False

    async def enter(self, size: int = 0, deadline: float = math.inf) -> None:
        """Wait for a turn. OverCapacity where too much waits already, DeadlinePassed.

        ``size``: bytes of the body, which must be here, so that a slow client takes no place; for
        ``missed``, ids.
        """
        budget, kind = self._budget, self._kind
        self._asked = True
        self._size, self._predicted = size, budget.predict(kind, size)
        budget.spend(kind, size * RECEIVED_A_BYTE_S)
        if not budget.has_room(kind, self._predicted):
            await budget.refused(kind, REFUSAL_S + size * REFUSED_A_UNIT_S[kind == "missed"])
            raise over_capacity()
        self._within = True
        budget.enter(kind, self._predicted)
        await self.turn(deadline)

    async def turn(self, deadline: float = math.inf) -> None:
        """Wait for a turn before each further slice of work. DeadlinePassed."""
        await self._budget.turn(deadline)

    async def turned_away(self, size: int) -> None:
        """Delay the answer of a request that is refused before ``enter``."""
        if not self._asked:
            await self._budget.turned_away(size)

    def spent(self, seconds: float) -> None:
        self._took += seconds
        self._budget.spend(self._kind, seconds)

    def leave(self) -> None:
        if self._within:
            self._within = False
            self._budget.leave(self._kind, self._predicted)
            self._budget.learn(self._kind, self._size, self._took)
