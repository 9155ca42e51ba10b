from __future__ import annotations

from pathlib import Path

import pytest

from tests.text.corpus.archives import write_archives
from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.corpus.sources import chosen

NAMES = ("packages", "libreoffice-help", "libreoffice-l10n")


@pytest.fixture(scope="package")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    write_archives(folder)
    return folder


@pytest.fixture(scope="package")
def corpus(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("corpus") / "ende"
    build(out, ["en", "de"], chosen(NAMES), [], Archives(archives))
    return Corpus.open(out)
