"""Which version answers a request, and when one is free to go."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contract import MAX_ID
from service.errors import ModelFault, StoreFailure
from service.models.canary import Canary, seed_of
from service.models.loaded_model import LoadedModel
from service.models.registry import ModelRegistry

ids = st.integers(0, MAX_ID)


@given(ids, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_of_a_canary_only_adds_users(user: int, a: float, b: float) -> None:
    small, large = sorted((a, b))
    seed = seed_of("v2")
    if Canary(None, small, seed).takes(user):  # type: ignore[arg-type]
        assert Canary(None, large, seed).takes(user)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1.0])
def test_a_canary_takes_its_share_of_neighbouring_ids(share: float) -> None:
    canary = Canary(None, share, seed_of("v2"))  # type: ignore[arg-type]
    taken = sum(canary.takes(user) for user in range(20_000))
    assert abs(taken / 20_000 - share) < 0.006


def test_two_canaries_take_different_users() -> None:
    one, other = (Canary(None, 0.5, seed_of(name)) for name in ("v2", "v3"))  # type: ignore[arg-type]
    both = sum(one.takes(user) and other.takes(user) for user in range(10_000))
    assert abs(both / 10_000 - 0.25) < 0.02


def version(name: str) -> LoadedModel:
    return LoadedModel(
        SimpleNamespace(version=name, schema=SimpleNamespace(user=(), request=())),
        SimpleNamespace(),
    )  # type: ignore[arg-type]


async def test_a_version_is_drained_when_its_last_request_ends() -> None:
    registry, old, new = ModelRegistry(), version("old"), version("new")
    registry.activate(old)
    first, second = registry.lease(None), registry.lease("old")
    with first:
        with second:
            registry.activate(new)
            registry.remove(old)
            draining = asyncio.create_task(registry.drained(old))
            await asyncio.sleep(0)
            assert not draining.done()
            assert registry.under_way(old) == 2
        await asyncio.sleep(0)
        assert not draining.done()
    await asyncio.wait_for(draining, 60)
    assert registry.lease(None).version is new


@pytest.mark.parametrize(
    ("error", "failures"),
    [(ModelFault("nan"), 1), (RuntimeError(), 1), (StoreFailure("down"), 0), (KeyError(), 1)],
)
def test_only_what_is_a_models_fault_counts_against_it(error: Exception, failures: int) -> None:
    registry, one = ModelRegistry(), version("one")
    registry.activate(one)
    with pytest.raises(type(error)), registry.lease(None):
        raise error
    assert one.stats.failures == failures
    assert one.stats.answers == 0
