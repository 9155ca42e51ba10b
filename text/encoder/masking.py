"""Masks whole words: the inputs and targets of masked language modelling.

Of the chosen tokens 80 % become the mask token, 10 % a random token, 10 % stay (Devlin et al.
2019); a word is chosen whole, so that no piece of it gives the others away.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASKED, RANDOM = 0.8, 0.1


def mask_words(
    ids: NDArray[np.int64],
    words: NDArray[np.int64],
    share: float,
    mask_token: int,
    random_tokens: tuple[int, int],
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the ids (N,) with words masked and which were chosen (N,).

    ``words`` (N,) numbers the tokens' words from 0; −1 is a special token, never chosen. Each word
    is chosen with probability ``share``; random tokens are drawn from the half-open range.
    """
    chosen_words = generator.random(int(words.max(initial=-1)) + 1) < share
    chosen = np.zeros(len(ids), bool)
    own = words >= 0
    chosen[own] = chosen_words[words[own]]
    fate = generator.random(len(ids))
    masked = ids.copy()
    masked[chosen & (fate < MASKED)] = mask_token
    drawn = chosen & (fate >= MASKED) & (fate < MASKED + RANDOM)
    masked[drawn] = generator.integers(*random_tokens, size=int(drawn.sum()))
    return masked, chosen
