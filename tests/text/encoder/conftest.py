"""The tiny corpus, built once for the tests of the encoder."""

from __future__ import annotations

import pytest

from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.corpus.own_files import TINY


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("tiny")
    store = Archives(folder / "archives")
    build(folder / "corpus", ["en", "de"], {}, [TINY], store)
    return Corpus.open(folder / "corpus")
