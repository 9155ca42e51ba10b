"""One thread for the networks of this folder's tests, and fewer pictures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

from training.evaluation.plots import learning_curve
from training.loop import fit


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads wait for each other on networks this small, and add in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def example_curve() -> bytes:
    epochs = [dict.fromkeys(("train_loss", "valid_logloss", "valid_auc"), 0.5) | {"epoch": 1}]
    return learning_curve(epochs, 1)


@pytest.fixture
def one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of many runs: drawing each one's curve takes longer than such a run."""

    def drawn(epochs: list[Any], best_epoch: int) -> bytes:
        return example_curve()

    monkeypatch.setattr(fit, "learning_curve", drawn)
