"""The longest history there may be: learned from, folded, stored and served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from feature_store.schema import MAX_HISTORY
from tests.service.api.test_score import score
from tests.service.parity import TOLERANCE
from tests.service.process import serving
from tests.service.world import make_world, on_another_store
from tests.training.worlds import SIZES, SMALL, small_rows
from training import checkpoint
from training.loop.data_parallel import process_group
from training.loop.fit import fit
from training.recipe import Recipe

LONG = SMALL.model_copy(update={"history_length": MAX_HISTORY})
RECIPE = Recipe(sizes=SIZES, learning_rate=1e-3, batch_size=50, epochs=2)
BOUNDED, FULL, OVERFULL = 3, 4, 5  # users


def test_2048_clicks_are_learned_from_stored_and_served(tmp_path: Path) -> None:
    assert MAX_HISTORY == 2048
    with process_group() as group:
        rows = small_rows(200, seed=1, schema=LONG), small_rows(100, seed=2, schema=LONG)
        fit(*rows, RECIPE, tmp_path / "checkpoint", group)
    network = checkpoint.load(tmp_path / "checkpoint")
    made = make_world(tmp_path / "world", items=60, users=2, network=network)
    assert made.bundle.schema.history_length == 2048

    random = np.random.default_rng(3)
    lengths = {BOUNDED: 1500, FULL: 2048, OVERFULL: 3000}
    clicks = {user: random.choice(made.ids, length) for user, length in lengths.items()}
    world = on_another_store(replace(made, users=clicks), f"lmdb://{tmp_path / 'clicks'}")
    candidates, answered = made.ids[:20], []
    with serving(world.models, world.store) as service, service.client() as client:
        for user, history in clicks.items():
            kept = history[:2048]  # newest first: the store forgets the rest
            assert len(np.unique(kept)) <= 60  # an item may be clicked again and again
            expected = world.answer(kept, candidates)
            stored = score(client, user, candidates)
            np.testing.assert_allclose(stored["scores"], expected, atol=TOLERANCE)
            inline = score(client, user, candidates, history=kept.tolist())
            np.testing.assert_allclose(inline["scores"], expected, atol=TOLERANCE)
            answered.append(expected)
    assert np.ptp(np.concatenate(answered)) > 0.1
