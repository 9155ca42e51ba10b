"""Admission control: admits as much predicted work as can be done in time, and refuses the rest.

The unit is predicted engine time, not requests. A request's forecast is the time that the admitted
ones will keep the engine from it; beyond the limit it is refused (429).

The limit adapts. A request may wait for what the target leaves beside a typical request's own work,
and the limit is corrected by how long admitted requests really waited: it grows where forecasts are
too high (much of a request's time passes outside the engine, say in the store) and shrinks where
they are too low.

The engine works in round robin, so each job ahead delays a short list by one chunk at most: a long
list counts as one chunk in the forecasts of short ones, and in full in those of other long ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import NoReturn

from service.context import Priority
from service.engine.engine import Engine, Job
from service.errors import OverCapacity
from service.observability.metrics import Metrics

BATCH_SHARE = 0.5  # of the limit: batch yields first
MEMORY = 0.99  # of forecasts and what came true, per request
PRIOR = 10.0  # limits' worth of forecasts that came true exactly, before any did
MOST_WRONG = 4.0  # bound on the correction of forecasts, as a factor
SAFE = 0.8  # of the target: what is not forecast has the rest
LEAST = 2.5  # typical requests: two may be ahead, however low the target
FIRST_GUESS_S = 0.003  # of a request's own work, before any was measured
FULL = "the service is at its capacity"
FIRST_GUESS_A_CANDIDATE_S = 50e-6  # before anything was measured
PACE = 0.05  # weight of the newest measurement
RETRY_AFTER_S = {Priority.ONLINE: 1, Priority.BATCH: 5}


class CostModel:
    """Predicts how long the engine will be busy, from measurements. On the event loop alone.

    The time per candidate falls with the length of the list (a request has a fixed cost), so
    lengths are kept apart by powers of two; an unseen length is predicted by its nearest.
    """

    def __init__(self) -> None:
        self._per_candidate: dict[int, float] = {}  # power of two -> seconds

    def learn(self, candidates: int, seconds: float) -> None:
        power, measured = candidates.bit_length(), seconds / candidates
        known = self._per_candidate.get(power, measured)
        self._per_candidate[power] = known + PACE * (measured - known)

    def predict(self, candidates: int) -> float:
        power = candidates.bit_length()
        rate = self._per_candidate.get(power)
        if rate is None:
            nearest = min(self._per_candidate, key=lambda known: abs(known - power), default=None)
            rate = FIRST_GUESS_A_CANDIDATE_S if nearest is None else self._per_candidate[nearest]
        return candidates * rate


class Admission:
    """Admits requests by their forecast. On the event loop alone; nothing here waits."""

    def __init__(self, engine: Engine, metrics: Metrics, target_s: float) -> None:
        """``target_s``: target for the p99 latency of short requests."""
        self.cost, self.explaining, self.deriving = CostModel(), CostModel(), CostModel()
        self._engine, self._target_s = engine, target_s
        self._admitted, self._refused = (
            {p: metrics.admission.labels(p.value, outcome) for p in Priority}
            for outcome in ("admitted", "refused")
        )
        self._under_way = dict.fromkeys(Priority, 0)
        self._ahead = dict.fromkeys(Priority, 0.0)  # seconds; a long list is one chunk
        self._whole = dict.fromkeys(Priority, 0.0)  # seconds
        self._typical: float | None = None  # seconds of a request, a long list as one chunk
        self._forecasts = self._came_true = 0.0  # seconds, fading sums
        self._limit = self._most_wait(FIRST_GUESS_S)

    @property
    def limit(self) -> float:
        """Return the forecast, in seconds, up to which online requests are admitted."""
        return self._limit

    def forecast(self, priority: Priority = Priority.ONLINE) -> float:
        """Predict for how long (s) admitted requests keep the engine from a short list."""
        ahead = self._ahead[Priority.ONLINE]
        if priority is Priority.BATCH:
            ahead += self._ahead[Priority.BATCH]
        return ahead / self._engine.threads

    def let_in(self) -> float | None:
        """Requests admitted so far; None while one is under way."""
        if any(self._under_way.values()):
            return None
        return sum(counter.value for counter in self._admitted.values())

    def has_room(self, priority: Priority) -> bool:
        """Whether a request of this class has a chance, before its body is read."""
        share = 1.0 if priority is Priority.ONLINE else BATCH_SHARE
        return self.forecast(priority) <= self._limit * share

    def enter(
        self,
        candidates: int,
        deadline: float,
        priority: Priority = Priority.ONLINE,
        explained: int = 0,
    ) -> Permit:
        """``with admission.enter(…) as permit``, once the length of the list is known, and how many
        of it are to be ``explained``.

        ``deadline`` is on ``perf_counter``. OverCapacity when there is no room, or when those ahead
        leave no time before the deadline.
        """
        if not self.has_room(priority):
            self._refuse(priority, FULL)
        engine, forecast = self._engine, self.forecast(priority)
        seconds, chunk = self.cost.predict(candidates), self.cost.predict(engine.chunk)
        if explained:
            seconds += self.explaining.predict(explained)
        ahead = forecast if seconds <= chunk else self._all() / engine.threads
        if ahead:
            spread = min(engine.threads, engine.pieces(candidates))
            if perf_counter() + ahead + seconds / spread > deadline:
                self._refuse(priority, "the deadline leaves no time after those who came before")
        self._admitted[priority].inc()
        return Permit(self, priority, deadline, seconds, min(seconds, chunk), forecast)

    def _all(self) -> float:
        """Seconds of one thread that all admitted requests take."""
        return sum(self._whole.values())

    def over_capacity(self, priority: Priority, detail: str = FULL) -> OverCapacity:
        """Make the refusal; ``count_refused`` counts it."""
        after = str(RETRY_AFTER_S[priority])
        return OverCapacity(f"{detail}; try again later", headers={"Retry-After": after})

    def count_refused(self, priority: Priority) -> None:
        self._refused[priority].inc()

    def _refuse(self, priority: Priority, detail: str) -> NoReturn:
        self.count_refused(priority)
        raise self.over_capacity(priority, detail)

    def _taken(self, permit: Permit) -> None:
        self._under_way[permit.priority] += 1
        self._ahead[permit.priority] += permit.share
        self._whole[permit.priority] += permit.seconds

    def _given_back(self, permit: Permit) -> None:
        priority = permit.priority
        self._under_way[priority] -= 1
        self._whole[priority] -= permit.seconds
        self._ahead[priority] -= permit.share
        if not self._under_way[priority]:  # no rounding is left behind
            self._whole[priority] = self._ahead[priority] = 0.0

    def _learn(self, permit: Permit, took: Took) -> None:
        candidates, busy, waited = took
        self.cost.learn(candidates, busy)
        if permit.priority is not Priority.ONLINE:
            return
        self._forecasts = MEMORY * self._forecasts + permit.forecast
        self._came_true = MEMORY * self._came_true + waited
        own = min(busy, self.cost.predict(self._engine.chunk))
        typical = own if self._typical is None else self._typical
        self._typical = typical + PACE * (own - typical)
        most = self._most_wait(self._typical)
        prior = PRIOR * most
        wrong = (self._came_true + prior) / (self._forecasts + prior)
        self._limit = most / min(max(wrong, 1 / MOST_WRONG), MOST_WRONG)

    def _most_wait(self, typical: float) -> float:
        """Seconds that a request may really wait."""
        return max(SAFE * self._target_s - typical, LEAST * typical)


# Candidates that were scored; seconds that engine threads spent on them; seconds that it waited.
Took = tuple[int, float, float]


@dataclass(slots=True, eq=False)
class Permit:
    """One admitted request: held from parsing to the answer."""

    _admission: Admission
    priority: Priority
    deadline: float  # on ``perf_counter``
    seconds: float  # predicted, of one engine thread
    share: float  # of them, at most a chunk's
    forecast: float  # seconds until its turn
    took: Took | None = field(default=None, init=False)

    def __enter__(self) -> Permit:
        self._admission._taken(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission._given_back(self)
        if kind is not None:  # there is no answer after which it would learn
            self.learn()

    def defer(self) -> None:
        """Continue at batch priority, in the queue as well: the client may have closed."""
        if self.priority is not Priority.BATCH:
            self._admission._given_back(self)
            self.priority = Priority.BATCH
            self._admission._taken(self)

    def derives(self, items: int) -> None:
        """Add the predicted time of items that are to be derived first."""
        admission = self._admission
        admission._given_back(self)
        self.seconds += admission.deriving.predict(items)
        self.share = min(self.seconds, admission.cost.predict(admission._engine.chunk))
        admission._taken(self)

    def derived(self, items: int, seconds: float) -> None:
        self._admission.deriving.learn(items, seconds)

    def explained(self, candidates: int, seconds: float) -> None:
        self._admission.explaining.learn(candidates, seconds)

    def scored(self, candidates: int, job: Job) -> None:
        """Note that ``job``, which has just ended, scored so many."""
        waited = job.started - job.submitted + perf_counter() - job.finished
        self.took = candidates, job.busy, waited

    def learn(self) -> None:
        """Learn from what the request took, once, after its answer."""
        took, self.took = self.took, None
        if took is not None:
            self._admission._learn(self, took)
