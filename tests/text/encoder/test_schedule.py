"""The learning rate and weight decay of a stage."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from text.encoder import schedule
from text.encoder.jinabert import JinaBert
from text.encoder.recipe import AdamW
from text.encoder.sizes import EncoderSizes


@given(steps=st.integers(1, 500), warm_up=st.floats(0, 0.99))
def test_the_rate_rises_to_its_peak_then_falls_and_is_never_0(steps: int, warm_up: float) -> None:
    rates = [schedule.rate(step, steps, 1.0, warm_up) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0


def test_biases_and_norms_have_no_decay() -> None:
    network = JinaBert(EncoderSizes(vocabulary=300, hidden=6, heads=1, layers=1, intermediate=4))
    matrices, vectors = schedule.optimiser(network.named_parameters(), AdamW()).param_groups
    assert vectors["weight_decay"] == 0
    assert all(isinstance(p, torch.nn.Parameter) and p.ndim == 1 for p in vectors["params"])
    assert matrices["weight_decay"] == 0.01
    total = sum(1 for _ in network.parameters())
    assert len(matrices["params"]) + len(vectors["params"]) == total
