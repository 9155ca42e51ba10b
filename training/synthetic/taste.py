"""Adds to a click model what user and request know: country, own bias, hour and device.

The logit of a click is the click model's plus

    Σ_f shift_f·v  +  bias of the user  +  intercept

with a vector shift_f (K numbers) for the user's country and for the request's device, and for the
hour a direction times its difference from noon. A missing hour or device shifts nothing. What is
unknown to every model is averaged exactly: the bias of users without training rows over its
distribution, and, for models without these features, all of them (but for what a user's history
gives away: users with training rows can in principle be recognised by it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.synthetic.click_model import LATENT, POSITIVES, Floats, Indices, sigmoid

COUNTRIES, DEVICES, HOURS = 8, 3, 24
COUNTRY, DEVICE, HOUR = 1.6, 0.8, 1.2  # norms of the shifts of taste
BIAS = 0.8  # standard deviation
MISSING = 0.05  # share of requests without an hour, and without a device
NODES = 24  # of the quadrature over biases
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Requests:
    """Request features of rows."""

    hour: Floats  # NaN where missing
    device: Indices  # 1 … DEVICES, 0 where missing

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: tuple[int, int]) -> Requests:
        hour = rng.integers(0, HOURS, shape).astype(np.float32)
        hour[rng.random(shape) < MISSING] = np.nan
        device = rng.integers(1, DEVICES + 1, shape)
        device[rng.random(shape) < MISSING] = 0
        return cls(hour, device)

    def columns(self, count: int) -> tuple[pa.Array, pa.Array]:
        """Device and hour of the first ``count`` rows; null where missing."""
        device, hour = self.device.ravel()[:count], self.hour.ravel()[:count]
        return pa.array(device, mask=device == 0), pa.array(hour, mask=np.isnan(hour))


class Taste:
    """Country and bias of every user, and the shifts that follow."""

    def __init__(self, rng: np.random.Generator, users: int, known: int) -> None:
        """``known``: so many users, the first, have training rows."""
        self.known = known
        self.country = rng.integers(1, COUNTRIES + 1, users)  # (U,)
        self.bias = rng.normal(0, BIAS, users)  # (U,)
        self._of_country = _shifts(rng, COUNTRIES, COUNTRY)  # (countries + 1, K)
        self._of_device = _shifts(rng, DEVICES, DEVICE)
        self._of_hour = _shifts(rng, 1, HOUR)[1]  # (K,)
        self.intercept = 0.0

    def logit(self, logit: Doubles, user: Indices, latent: Floats, requests: Requests) -> Doubles:
        """Add to the click model's logit (U, R) of users (U,) and items' latent (U, R, K)."""
        shift = self._of_country[self.country[user]][:, None] + self._of_device[requests.device]
        shift = shift + _standard(requests.hour)[..., None] * self._of_hour
        tasted: Doubles = logit + (shift * latent).sum(-1) + self.bias[user][:, None]
        return tasted + self.intercept

    def calibrate(self, logit: Doubles) -> None:
        """Fit the intercept to one click in four for logits without it."""
        low, high = -20.0, 20.0
        for _ in range(40):  # bisection: the share of clicks rises with the intercept
            self.intercept = (low + high) / 2
            if sigmoid(logit + self.intercept).mean() > POSITIVES:
                high = self.intercept
            else:
                low = self.intercept

    def best(self, logit: Doubles, user: Indices) -> Doubles:
        """P(click) as far as it can be learned, given ``logit`` of users, (U, R) each.

        For a user without training rows it is the mean over biases.
        """
        without = logit - self.bias[user][:, None]
        new = (user >= self.known)[:, None]
        return np.where(new, _over_biases(without), sigmoid(logit))

    def without_features(self, logit: Doubles, latent: Floats) -> Doubles:
        """P(click) given history and item alone, (n,): the mean over users and requests.

        logit (n,) is the click model's, latent (n, K).
        """
        hours = _standard(np.append(np.arange(HOURS, dtype=np.float32), np.float32(np.nan)))
        of_hour = np.append(np.full(HOURS, (1 - MISSING) / HOURS), MISSING)
        of_device = np.append(MISSING, np.full(DEVICES, (1 - MISSING) / DEVICES))
        total = np.zeros(len(logit))
        for hour, p_hour in zip(hours, of_hour, strict=True):
            for device, p_device in zip(self._of_device, of_device, strict=True):
                for country in self._of_country[1:]:
                    shift = country + device + hour * self._of_hour
                    shifted = logit + latent @ shift + self.intercept
                    total += p_hour * p_device / COUNTRIES * _over_biases(shifted)
        return total


def _over_biases(logit: Doubles) -> Doubles:
    """Mean of σ(logit + bias) over the biases' distribution (Gauss–Hermite quadrature)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    total = np.zeros_like(logit)
    for node, weight in zip(nodes, weights, strict=True):
        total += weight * sigmoid(logit + BIAS * node)
    return total


def _standard(hour: Floats) -> Doubles:
    """Distance from noon in standard deviations of the hours of a day; 0 where missing."""
    distance: Doubles = (hour.astype(np.float64) - (HOURS - 1) / 2) / np.sqrt((HOURS**2 - 1) / 12)
    return np.nan_to_num(distance)


def _shifts(rng: np.random.Generator, count: int, size: float) -> Doubles:
    """Draw (count + 1, K) shifts of norm ``size``; row 0 is 0."""
    vectors = rng.standard_normal((count + 1, LATENT))
    vectors *= size / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    return vectors
