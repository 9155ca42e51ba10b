"""The tiny corpus, by the name that the tests of the encoder have for it."""

from __future__ import annotations

import pytest

from text.corpus.corpus import Corpus


@pytest.fixture(scope="session")
def tiny(corpus: Corpus) -> Corpus:
    return corpus
