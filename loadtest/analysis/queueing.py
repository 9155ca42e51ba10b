"""Computes response times of queues: the expected values of ``self-check``."""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def md1_response(q: float, rate: float, service: float) -> float:
    """Compute the q-quantile of M/D/1 response time (Poisson arrivals, constant service), seconds.

    The waiting time's distribution is Erlang's (1909), as in Tijms, A First Course in Stochastic
    Models, 9.4: P(W ≤ x) = (1 − ρ) Σ_k (λ(kD − x))ᵏ/k! · e^{−λ(kD − x)} over k ≤ x/D.
    """
    low, high = 0.0, 40 * service
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if md1_waiting(middle, rate, service) < q else (low, middle)
    return high + service


def md1_waiting(x: float, rate: float, service: float) -> float:
    """Compute P(W ≤ x). fsum keeps the alternating series exact enough to x = 40 D at ρ = 0.7."""
    terms = []
    for k in range(int(x / service) + 1):
        ahead = rate * (x - k * service)
        terms.append(
            (-1) ** k * math.exp(k * math.log(ahead) - math.lgamma(k + 1) + ahead)
            if ahead > 0
            else float(k == 0)
        )
    return min(1.0, (1 - rate * service) * math.fsum(terms))


def queue_response(
    at: Times, service: float, servers: int, stall: tuple[float, float] | None = None
) -> Times:
    """Simulate a first-come queue of ``servers`` with constant service: (n,) response times.

    During ``stall`` (from, until) all servers pause: service in progress ends with the stall,
    service that would begin within it starts after it.
    """
    free = [0.0] * servers
    response = np.empty_like(at)
    for number, arrival in enumerate(at.tolist()):
        begins = max(arrival, free[0])
        ends = begins + service
        if stall is not None and ends > stall[0] and begins < stall[1]:
            ends = stall[1] + service if begins >= stall[0] else max(ends, stall[1])
        heapq.heapreplace(free, ends)
        response[number] = ends - arrival
    return response
