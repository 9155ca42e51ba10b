"""Generates items, users and clicks from a click model whose probability is known exactly.

An item has a latent vector v (K numbers, norm √K) and a popularity; tags and content embedding are
noisy functions of v, level buckets of the popularity. A user's history is clicked step by step with
a drifting interest. The probability of a click on a candidate depends only on inputs of a model,
the history and the candidate:

    interest = scale · Σ_j v_j / (n + S)                      over the n items of the history
    P(click) = σ(A · interest·v / √K  +  B · popularity  +  intercept)

S shrinks the interest of short histories. ``scale`` and ``intercept`` are fitted once, to unit
interests and one click in four. The AUC of P itself is the best that any model can reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

LATENT = 4  # K
AFFINITY, POPULARITY = 2.5, 1.0  # A, B
POSITIVES = 0.25
COLD_ITEMS = 0.08  # share of the catalogue
PREFERENCE, CHOICES = 3.0, 8  # a click selects from so many items, by interest
KEPT = 0.99  # correlation of interest from one click to the next
SHRINKAGE = 6.0  # S, in clicks
EMPTY, SHORT, SHORT_LENGTH = 0.03, 0.10, 4
DRAWS = 1 << 20  # resolution of the popularity distribution
STRETCH = 1.25
LEVELS = 10
TINY = np.float32(1e-30)  # keeps logarithms finite


@dataclass(frozen=True, slots=True)
class Items:
    """The catalogue; row 0 of every array is padding and zero."""

    latent: Floats  # (N + 1, K)
    popularity: Floats  # (N + 1,) standardised logarithm
    cold: NDArray[np.bool_]  # (N + 1,) never shown in training
    tags: Indices  # (N + 1, slots) 0-padded on the left
    content: Floats  # (N + 1, size)
    levels: Indices  # (N + 1, 2) likes and views, 1 … 10


@dataclass(slots=True)
class Users:
    """Users: current interest and clicked items, newest on the right."""

    interest: Floats  # (U, K)
    history: Indices  # (U, L) 0 where there is none

    def __getitem__(self, part: slice) -> Users:
        return Users(self.interest[part], self.history[part])


def plant_items(rng: np.random.Generator, count: int, tags: int, slots: int, size: int) -> Items:
    """Draw ``count`` items, tags 1 … ``tags``, content embeddings of ``size`` numbers."""
    latent = _directions(rng, count)
    popularity = _popularity(rng, count)
    cold = np.zeros(count, bool)
    cold[rng.permutation(count)[: max(1, round(COLD_ITEMS * count))]] = True
    items = _items_of(rng, latent, popularity, cold, size)
    return replace(items, tags=_padded(_tags(rng, latent, tags, slots)))


def items_of_tastes(
    rng: np.random.Generator, latent: Floats, cold: NDArray[np.bool_], size: int
) -> Items:
    """Draw all else of items of given latent vectors (N, K), of norm √K; they have no tags."""
    return _items_of(rng, latent, _popularity(rng, len(latent)), cold, size)


def _popularity(rng: np.random.Generator, count: int) -> Floats:
    share = np.arange(1, count + 1) ** -0.7  # a mild Zipf
    popularity = np.log(share)[rng.permutation(count)]
    standard: Floats
    standard = ((popularity - popularity.mean()) / max(popularity.std(), 1e-9)).astype(np.float32)
    return standard


def _items_of(
    rng: np.random.Generator, latent: Floats, popularity: Floats, cold: NDArray[np.bool_], size: int
) -> Items:
    count = len(latent)
    reveal = rng.standard_normal((LATENT, size), np.float32) / np.sqrt(LATENT)
    content = latent @ reveal + 0.25 * rng.standard_normal((count, size), np.float32)
    content *= rng.uniform(1 / STRETCH, STRETCH, (count, 1))  # norms vary, as the challenge's
    noisy = popularity[:, None] + 0.3 * rng.standard_normal((count, 2), np.float32)
    levels = 1 + noisy.argsort(0).argsort(0) * LEVELS // count
    return Items(
        _padded(latent),
        _padded(popularity),
        _padded(cold),
        np.zeros((count + 1, 0), np.int64),
        _padded(content.astype(np.float32)),
        _padded(levels),
    )


class ClickModel:
    """Draws users, clicks and candidates over a catalogue, and computes P(click)."""

    def __init__(self, items: Items, history_length: int, rng: np.random.Generator) -> None:
        self.items, self.history_length = items, history_length
        self._warm = np.flatnonzero(~items.cold)[1:]
        self._cold = np.flatnonzero(items.cold)
        self._drawn = self._popular_first()
        self.scale, self.intercept = 1.0, 0.0
        self._calibrate(rng)

    def new_users(self, rng: np.random.Generator, count: int) -> Users:
        """Draw users with histories, some short, some empty."""
        users = Users(_normal(rng, count), np.zeros((count, self.history_length), np.int64))
        self.click(rng, users, self.history_length)
        longest = self.history_length
        length = rng.integers(max(1, longest * 3 // 4), longest + 1, count)
        short = rng.random(count) < SHORT / (1 - EMPTY)
        length[short] = rng.integers(1, min(SHORT_LENGTH, longest) + 1, count)[short]
        length[rng.random(count) < EMPTY] = 0
        users.history[np.arange(longest) < longest - length[:, None]] = 0
        return users

    def click(self, rng: np.random.Generator, users: Users, times: int) -> None:
        """Append ``times`` clicks to each history, with drifting interest."""
        count = len(users.interest)
        latent = self.items.latent
        clicked = np.empty((count, times), np.int64)
        for step in range(times):
            offered = self._popular(rng, (count, CHOICES))
            utility = latent[offered] @ users.interest[:, :, None]  # (U, choices, 1)
            utility = utility[:, :, 0] * np.float32(PREFERENCE / np.sqrt(LATENT))
            utility += _gumbel(rng, utility.shape)
            clicked[:, step] = offered[np.arange(count), utility.argmax(1)]
            users.interest *= np.float32(KEPT)
            users.interest += np.float32(np.sqrt(1 - KEPT**2)) * _normal(rng, count)
        users.history = np.hstack([users.history, clicked])[:, -self.history_length :]

    def candidates(self, rng: np.random.Generator, users: int, rows: int, cold: float) -> Indices:
        """Draw (users, rows) items, popular ones more often, a share ``cold`` of cold ones."""
        target = self._popular(rng, (users, rows))
        if cold:
            shown = rng.random(target.shape) < cold
            target = np.where(shown, rng.choice(self._cold, target.shape), target)
        return target

    def probability(self, history: Indices, target: Indices) -> NDArray[np.float64]:
        """Compute P(click) of targets (U, R) after histories (U, L)."""
        return sigmoid(self.logit(history, target))

    def logit(self, history: Indices, target: Indices) -> NDArray[np.float64]:
        """Compute the logit of P(click), (U, R)."""
        affinity = self._interest(history)[:, None, :] * self.items.latent[target]
        logit: NDArray[np.float64]
        logit = AFFINITY / np.sqrt(LATENT) * affinity.sum(2, dtype=np.float64)
        logit += POPULARITY * self.items.popularity[target] + self.intercept
        return logit

    def _interest(self, history: Indices) -> Floats:
        """Compute (U, K): the shrunken mean of the history's latent vectors."""
        total = np.zeros((len(history), LATENT), np.float32)
        for clicked in history.T:  # by slot, not to allocate (U, L, K)
            total += self.items.latent[clicked]
        clicks = np.count_nonzero(history, axis=1)[:, None]
        total *= (self.scale / (clicks + SHRINKAGE)).astype(np.float32)
        return total

    def _calibrate(self, rng: np.random.Generator) -> None:
        users = self.new_users(rng, 8192)
        self.scale = float(1 / np.sqrt((self._interest(users.history) ** 2).mean()))
        target = self.candidates(rng, 8192, 8, 0.0)
        low, high = -20.0, 20.0
        for _ in range(40):  # bisection: the share of clicks rises with the intercept
            self.intercept = (low + high) / 2
            if self.probability(users.history, target).mean() > POSITIVES:
                high = self.intercept
            else:
                low = self.intercept

    def _popular_first(self) -> Indices:
        """Build (DRAWS,) warm items by popularity, so that drawing is one look-up."""
        share = np.arange(1, len(self._warm) + 1) ** -0.7
        order = self._warm[np.argsort(-self.items.popularity[self._warm], kind="stable")]
        cumulative = np.cumsum(share) / share.sum()
        at = np.searchsorted(cumulative, (np.arange(DRAWS) + 0.5) / DRAWS)
        popular: Indices = order[np.minimum(at, len(order) - 1)]
        return popular

    def _popular(self, rng: np.random.Generator, shape: tuple[int, int]) -> Indices:
        drawn: Indices = self._drawn[rng.integers(0, DRAWS, shape, np.int32)]
        return drawn


def _tags(rng: np.random.Generator, latent: Floats, tags: int, slots: int) -> Indices:
    """Draw 1 … ``slots`` tags per item, near its latent vector, with noise."""
    centres = _directions(rng, tags)
    used = rng.integers(1, slots + 1, len(latent))
    nearest = np.zeros((len(latent), slots), np.int64)
    top = min(slots, tags)
    for first in range(0, len(latent), 4096):
        part = latent[first : first + 4096]
        near = part @ centres.T
        near += _gumbel(rng, near.shape)
        nearest[first : first + 4096, slots - top :] = np.sort(
            np.argpartition(-near, top - 1, axis=1)[:, :top] + 1, axis=1
        )
    nearest[np.arange(slots) < slots - used[:, None]] = 0
    return nearest


def _directions(rng: np.random.Generator, count: int) -> Floats:
    vectors = _normal(rng, count)
    vectors *= np.float32(np.sqrt(LATENT)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    noise: Floats = -np.log(rng.standard_exponential(shape, np.float32) + TINY)
    return noise


def _normal(rng: np.random.Generator, count: int) -> Floats:
    return rng.standard_normal((count, LATENT), np.float32)


def sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logit))


def _padded(rows: NDArray[np.generic]) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate([np.zeros_like(rows[:1]), rows])
