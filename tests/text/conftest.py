"""The bundle of a small encoder and the tiny corpus, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.text import small
from text.corpus.archives import Archives
from text.corpus.build import build as build_corpus
from text.corpus.corpus import Corpus
from text.corpus.own_files import TINY
from text.export.build import build


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.checkpoint(tmp_path_factory.mktemp("encoder") / "checkpoint")


@pytest.fixture(scope="session")
def bundle(checkpoint: Path) -> Path:
    return build(checkpoint, checkpoint.parent, version="v1", longest=small.LONGEST).path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    build_corpus(folder / "corpus", ["en", "de"], {}, [TINY], Archives(folder / "archives"))
    return Corpus.open(folder / "corpus")
