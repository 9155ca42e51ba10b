"""Updates of all rows of a table of users, and of touched rows alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.fitting import RECIPE
from tests.training.worlds import SIZES, small_rows_of_users
from training import checkpoint
from training.data.rows import Rows
from training.loop.data_parallel import process_group
from training.loop.fit import fit, fit_to_rows, gradients
from training.loop.optimiser import Optimiser
from training.qin import QIN
from training.recipe import Adam, Recipe

USERS = 50
TABLE = "user_vector.embedding.user_index.weight"


class Training:
    """A network and its optimiser, the weights large enough to see."""

    def __init__(self, rows: Rows, recipe: Recipe) -> None:
        torch.manual_seed(1)
        self.rows, self.recipe = rows, recipe
        self.network = QIN(rows.schema, SIZES.model_copy(update={"dropout": 0.0})).train()
        torch.nn.init.normal_(self.table, std=0.1)
        with torch.no_grad():
            self.table[0] = 0.0
        fit_to_rows(self.network, rows)
        self.optimiser = Optimiser(self.network, recipe)

    @property
    def table(self) -> torch.Tensor:
        return dict(self.network.named_parameters())[TABLE]

    def step(self, chosen: np.ndarray) -> None:  # type: ignore[type-arg]
        with process_group() as group:
            gradients(self.network, self.rows.batch(chosen), len(chosen), group)
        self.optimiser.step()


def recipe(above: int, **changed: float) -> Recipe:
    return RECIPE.model_copy(update={"touched_rows_above": above, **changed})


def test_large_tables_of_users_alone_are_updated_by_touched_rows() -> None:
    rows = small_rows_of_users(100, seed=1, users=USERS)
    for above, sparse in ((USERS, True), (USERS + 1, False)):
        training = Training(rows, recipe(above))
        training.step(np.arange(100))
        found = {n for n, p in training.network.named_parameters() if p.grad is not None}
        assert TABLE in found
        weights = dict(training.network.named_parameters())
        assert {n for n in found if getattr(weights[n].grad, "is_sparse", False)} == (
            {TABLE} if sparse else set()
        )


def test_rows_in_no_batch_keep_weights_and_moments() -> None:
    rows = small_rows_of_users(400, seed=1, users=USERS)
    assert rows.users is not None
    training = Training(rows, recipe(0, embedding_regulariser=0.1))
    for _ in range(2):
        training.step(np.arange(400))
    before = training.table.detach().clone()
    chosen = np.flatnonzero(rows.users.row <= 5)
    training.step(chosen)
    changed = (training.table != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [1, 2, 3, 4, 5]
    assert not training.table[0].any()


@pytest.mark.parametrize("clip", [1e-3, 10.0])
def test_where_every_batch_has_every_user_both_kinds_of_update_agree(clip: float) -> None:
    rows = small_rows_of_users(400, seed=1, users=USERS)
    changed = {"embedding_regulariser": 0.01, "gradient_clip": clip}
    exact = {"adam": Adam(epsilon=1e-16)}  # the two add it in different places
    touched, dense = (
        Training(rows, recipe(above, **changed).model_copy(update=exact)) for above in (0, 99)
    )
    start = dense.table.detach().clone()
    for training in (touched, dense):
        for _ in range(5):
            training.step(np.arange(400))
    assert (dense.table - start).abs().max() > 0.01
    weights = dict(dense.network.named_parameters())
    for name, weight in touched.network.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4, msg=name)


def trained(out: Path, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    rows, valid = (small_rows_of_users(n, seed=s, users=USERS) for n, s in ((600, 1), (200, 2)))
    state = out.with_name(f".{out.name}.resume.pt")

    def stop(what: str, done: int, total: int) -> None:
        if stop_after and state.exists() and what.startswith(f"epoch {stop_after}"):
            raise KeyboardInterrupt

    with process_group() as group:
        fit(rows, valid, recipe(0), out, group, stop)
    return checkpoint.load(out).state_dict()


def test_a_stopped_run_goes_on_with_the_moments_of_touched_rows(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", stop_after=4)
    for name, tensor in trained(tmp_path / "stopped").items():
        assert torch.equal(tensor, whole[name]), name


def test_learning_rates_of_both_are_one() -> None:
    training = Training(small_rows_of_users(100, seed=1, users=USERS), recipe(0))
    training.optimiser.learning_rate = 0.5
    assert training.optimiser.touched is not None
    assert training.optimiser.touched.param_groups[0]["lr"] == 0.5
    assert training.optimiser.all.param_groups[0]["lr"] == training.optimiser.learning_rate == 0.5
