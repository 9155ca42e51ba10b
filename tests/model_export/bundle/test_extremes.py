"""What is scorable has finite scores beside typical items; what is not overflows."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from model_export.bundle.extremes import Extremes, magnitude
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import ItemVectors
from tests.service.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), items=60, users=2)


@pytest.fixture(scope="module")
def model(world: World) -> FoldedModel:
    return FoldedModel(world.bundle)


def scaled(items: ItemVectors, by: float) -> ItemVectors:
    with np.errstate(over="ignore"):
        return ItemVectors(items.vector * np.float32(by), items.row * np.float32(by), items.context)


@pytest.mark.parametrize("power", range(-4, 39, 2))
def test_scorable_is_what_has_finite_scores_in_both_roles(
    world: World, model: FoldedModel, power: int
) -> None:
    items = scaled(model.items(world.rows), 10.0**power)
    typical = model.items(world.bundle.golden().items[:96])
    history = model.history(typical.vector[: world.schema.history_length])
    found = model.scorable(items)
    for at in range(len(items)):
        one = items.part(at, at + 1)
        finite = bool(np.isfinite(one.vector).all() and np.isfinite(one.row).all())
        candidate = finite and np.isfinite(model.logits(one, history)).all()
        past = finite and model.logits(typical.part(0, 16), model.history(one.vector))
        assert found[at] == (candidate and bool(np.isfinite(past).all()))


def test_items_of_the_catalogue_are_not_even_tried(world: World, model: FoldedModel) -> None:
    vectors = model.items(world.rows).vector
    assert magnitude(vectors).max() < model.extremes.tried_beyond < np.inf


def test_a_thousand_items_of_which_one_is_huge_cost_few_trials(
    world: World, model: FoldedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()
    logits = FoldedModel.logits

    def counted(self: FoldedModel, items: ItemVectors, *rest: object) -> object:
        calls.append(len(items))
        return logits(self, items, *rest)  # type: ignore[arg-type]

    rows = np.tile(world.rows, 17)[:1000]
    items = scaled(model.items(rows), 20.0)  # tried, all of them
    items.vector[500], items.row[500] = items.vector[500] * 1e7, items.row[500] * 1e7
    assert (magnitude(items.vector) > model.extremes.tried_beyond).sum() > 500
    monkeypatch.setattr(FoldedModel, "logits", counted)
    found = model.scorable(items)
    assert np.flatnonzero(~found).tolist() == [500]
    assert len(calls) < 50


def test_nan_and_infinity_are_not_scorable(world: World, model: FoldedModel) -> None:
    items = model.items(world.rows[:3])
    items.vector[0, 1], items.row[2, 3] = np.nan, np.inf
    assert model.scorable(items).tolist() == [False, True, False]


def test_a_network_that_nothing_overflows_tries_nothing(world: World, model: FoldedModel) -> None:
    class Calm:
        schema = model.schema
        history = staticmethod(model.history)

        @staticmethod
        def logits(items: ItemVectors, history: object) -> object:
            return np.zeros(len(items), np.float32)

    typical = model.items(world.bundle.golden().items[:96])
    assert Extremes(Calm(), typical).tried_beyond > 1e18  # type: ignore[arg-type]


def test_a_model_is_freed_without_the_collector(world: World) -> None:
    model = FoldedModel(world.bundle)
    model.scorable(model.items(world.rows))
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
