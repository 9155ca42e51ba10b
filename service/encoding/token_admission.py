"""Admission of texts by forecast time of the encoder's threads, from numbers of tokens.

A request is refused (429) if those admitted before it leave no time before its deadline. As in
``service.admission``, a long request counts as one run in the forecasts of short ones, because
threads take the runs of all requests in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from service.context import Priority
from service.engine.engine import Engine
from service.errors import OverCapacity
from service.observability.metrics import Metrics
from text.runtime.encoder import TextEncoder

RUN = 512  # tokens that threads encode before they take another request's
FIRST_GUESS_A_TOKEN_S = 100e-6  # before anything was measured
FIRST_GUESS_TOKENS_A_CHARACTER = 0.5
PACE = 0.05  # weight of the newest measurement
BATCH_SHARE = 0.5  # of the time to its deadline that a batch request may wait
FULL = "those who came before leave no time before the deadline; try again later"
RETRY_AFTER_S = {Priority.ONLINE: 1, Priority.BATCH: 5}
Lengths = NDArray[np.int64]  # (N,) tokens of texts


class TokenCost:
    """Predicts seconds of one thread. On the event loop alone.

    Attention makes tokens of long texts cost more, so texts are kept apart by powers of two of
    their length; an unseen one is predicted by its nearest.
    """

    def __init__(self) -> None:
        self._a_token: dict[int, float] = {}  # power of two -> seconds

    def learn(self, tokens: int, longest: int, seconds: float) -> None:
        """``tokens`` in all, of texts of at most ``longest``, took so many seconds."""
        power, measured = longest.bit_length(), seconds / tokens
        known = self._a_token.get(power, measured)
        self._a_token[power] = known + PACE * (measured - known)

    def predict(self, lengths: Lengths) -> float:
        if len(lengths) == 1:
            return self.predict_one(int(lengths[0]))
        powers = np.frexp(lengths)[1]  # the bit length of an integer
        tokens = np.bincount(powers, lengths)
        return sum(float(tokens[p]) * self._rate(p) for p in np.flatnonzero(tokens).tolist())

    def predict_one(self, length: int) -> float:
        """As ``predict``, of one text."""
        return length * self._rate(length.bit_length())

    def _rate(self, power: int) -> float:
        nearest = min(self._a_token, key=lambda known: abs(known - power), default=None)
        return FIRST_GUESS_A_TOKEN_S if nearest is None else self._a_token[nearest]


class TokenAdmission:
    """Admits requests by their forecast. On the event loop alone; nothing here waits."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self.cost, self.chunking = TokenCost(), TokenCost()
        self._engine = engine
        self._tokens_a_character = FIRST_GUESS_TOKENS_A_CHARACTER
        self._metrics = metrics.encoder
        self._under_way: set[TokenPermit] = set()

    def forecast(self, priority: Priority = Priority.ONLINE, *, long: bool = False) -> float:
        """Predict for how long (s) admitted requests keep the threads from a short one."""
        ahead = sum(
            permit.seconds if long else permit.share
            for permit in self._under_way
            if priority is Priority.BATCH or permit.priority is Priority.ONLINE
        )
        return ahead / self._engine.threads

    def guess(self, characters: Lengths, longest: int) -> Lengths:
        """Guess the tokens of texts of so many characters, at most ``longest`` each."""
        found: Lengths = (characters * self._tokens_a_character).astype(np.int64)
        return np.minimum(np.maximum(found, 1), longest)

    def learn_tokens(self, characters: int, tokens: int) -> None:
        measured = tokens / max(1, characters)
        self._tokens_a_character += PACE * (measured - self._tokens_a_character)

    def check(self, priority: Priority, deadline: float) -> None:
        """Raise OverCapacity if not even a short request has a chance, before its body is read."""
        self._refuse_late(priority, deadline, self.forecast(priority), 0.0)

    def enter(
        self,
        encoder: TextEncoder,
        lengths: Lengths,
        cost: TokenCost,
        priority: Priority,
        deadline: float,
    ) -> TokenPermit:
        """``with admission.enter(…) as permit``. OverCapacity if it would miss its deadline.

        ``lengths``: guessed tokens of each text; ``deadline`` is on ``perf_counter``. A request
        that nothing is ahead of is admitted, however long the forecast: forecasts may be wrong.
        """
        permit = TokenPermit(self, cost, encoder, priority)
        permit.expect(lengths)
        is_long = permit.seconds > permit.share
        ahead = self.forecast(priority, long=is_long)
        self._refuse_late(priority, deadline, ahead, permit.seconds / self._engine.threads)
        self._metrics.admitted.inc()
        return permit

    def _refuse_late(
        self, priority: Priority, deadline: float, ahead: float, seconds: float
    ) -> None:
        left = deadline - perf_counter()
        if priority is Priority.BATCH:
            left *= BATCH_SHARE
        if ahead and ahead + seconds > left:
            self._metrics.refused.inc()
            raise OverCapacity(FULL, headers={"Retry-After": str(RETRY_AFTER_S[priority])})


@dataclass(slots=True, eq=False)
class TokenPermit:
    """One admitted request: held from parsing to its vectors."""

    _admission: TokenAdmission
    _cost: TokenCost
    encoder: TextEncoder  # that the texts are for
    priority: Priority
    seconds: float = 0.0  # predicted, of one thread
    share: float = 0.0  # of them, at most a run's

    def __enter__(self) -> TokenPermit:
        self._admission._under_way.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission._under_way.discard(self)

    def expect(self, lengths: Lengths) -> None:
        """Predict from the tokens of each text: guessed ones, later counted ones."""
        self.seconds = self._cost.predict(lengths)
        longest = max(RUN, int(lengths.max(initial=0)))  # a text is encoded in one run
        self.share = min(self.seconds, self._cost.predict_one(longest))

    def learn(self, tokens: int, longest: int, seconds: float) -> None:
        self._cost.learn(tokens, longest, seconds)

    def defer(self) -> None:
        """Continue at batch priority, in the queue as well: the client may have closed."""
        self.priority = Priority.BATCH
