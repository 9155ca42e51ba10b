"""Makes rare tokens count most in a text's vector, before a network is trained on pairs.

After the last norm every token's vector has the same length, so that in the mean of a text's tokens
a frequent one counts as much as a name. Here a few numbers of all tokens' vectors are equal at
first, and the gain of the last norm all but drops them. The rarer a token, the longer the rest of
its vector: (idf / largest idf) ** power is its share of the whole. The norms before keep it, but
for the mean, which they take from all numbers: so tokens have a small part in common. The layers
change little at first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from text.encoder.jinabert import JinaBert
from text.tokenizer import Tokens

EQUAL = 16  # one in so many numbers of a vector is equal in all tokens
GAIN = 0.02  # of the last norm for these
LEAST, MOST = 0.05, 0.95  # weights


def weigh(network: JinaBert, idf: NDArray[np.float64], power: float) -> None:
    """Give word vectors lengths by the tokens' inverse document frequencies (V,), and all tokens
    equal numbers. Word vectors keep their directions, from the mean of all.

    Frequencies that are all 0, those of no texts, change nothing.
    """
    words = network.embeddings.word_embeddings.weight
    types = network.embeddings.token_type_embeddings.weight
    if not idf.any():
        return
    weights = np.clip((idf / idf.max()) ** power, LEAST, MOST)
    lengths = torch.from_numpy(weights / np.sqrt(1 - weights**2)).to(words.dtype)
    equal = max(1, network.sizes.hidden // EQUAL)
    whole = network.sizes.initial_deviation * network.sizes.hidden**0.5
    with torch.no_grad():
        words -= words.mean(0)
        words[:, :equal] = 0
        words *= (whole * lengths / words.norm(dim=1).clamp_min(1e-9))[:, None]
        types[0] = 0
        types[0, :equal] = whole / equal**0.5
        network.last_norm.weight[:equal] = GAIN


def inverse_document_frequencies(tokens: Tokens, vocabulary: int) -> NDArray[np.float64]:
    """Return ln((1 + N) / (1 + n)) of each token (V,), for the n of N texts that have it.

    A long text counts as the windows that it is cut into.
    """
    text = np.repeat(np.arange(len(tokens)), tokens.lengths)
    pairs = np.unique(text * vocabulary + tokens.ids)
    having = np.bincount(pairs % vocabulary, minlength=vocabulary)
    found: NDArray[np.float64] = np.log((1 + len(tokens)) / (1 + having))
    return found
