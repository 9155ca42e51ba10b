"""Small networks and one published bundle, shared by this room's tests."""

from __future__ import annotations

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


@pytest.fixture
def copied(network: QIN, tmp_path: Path) -> Bundle:
    """A bundle of this test's own, to damage."""
    return build(network, tmp_path / "models", version="mine")


@pytest.fixture(scope="session")
def model(bundle: Bundle) -> FoldedModel:
    return FoldedModel(bundle)
