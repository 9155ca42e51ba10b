"""Small networks and one published bundle, shared by this room's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_export.build import build
from model_export.bundle.bundle import Bundle
from model_export.bundle.runtime import FoldedModel
from model_export.quality.random_network import random_network
from tests.model_export.schemas import LEVELS, LEVELS_SIZES, SMALL, SMALL_SIZES
from training.qin import QIN


@pytest.fixture(scope="session")
def network() -> QIN:
    return random_network(SMALL, SMALL_SIZES, seed=1)


@pytest.fixture(scope="session")
def levels() -> QIN:
    """With user, request and shared features, and a bias in W_o."""
    return random_network(LEVELS, LEVELS_SIZES, seed=1)


@pytest.fixture(scope="session")
def bundle(network: QIN, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Published once; tests that damage a bundle take ``copied``."""
    return build(network, tmp_path_factory.mktemp("models"), version="small-1")


@pytest.fixture(scope="session")
def mine(network: QIN, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(network, tmp_path_factory.mktemp("mine"), version="mine")


@pytest.fixture
def copied(mine: Bundle, tmp_path: Path) -> Bundle:
    """A bundle of this test's own, to damage."""
    return Bundle.open(shutil.copytree(mine.path, tmp_path / "models" / mine.version))


@pytest.fixture(scope="session")
def model(bundle: Bundle) -> FoldedModel:
    return FoldedModel(bundle)
