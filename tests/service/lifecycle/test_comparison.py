"""When alternating calls show one version to be slower."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.lifecycle.comparison import Comparison


def paired(new: Any, old: Any) -> Comparison:
    return Comparison(np.array(new), np.array(old), np.zeros(len(new), np.int64))


@pytest.mark.parametrize(
    ("new", "old", "slower"),
    [
        ([1.0] * 100, [1.0] * 100, False),
        ([2.5] * 100, [1.0] * 100, False),
        ([3.5] * 100, [1.0] * 100, True),
        ([3.5] * 100, [1.0] * 80 + [9.0] * 20, True),  # others' noise does not hide it
        ([1.0] * 90 + [50.0] * 10, [1.0] * 100, True),  # its tail
        ([1.0] * 95 + [50.0] * 5, [1.0] * 95 + [50.0] * 5, False),  # everybody's
        ([1.0] * 92 + [50.0] * 8, [1.0] * 100, False),  # it may be chance
        ([1.0] * 80 + [50.0] * 20, [1.0] * 92 + [50.0] * 8, False),
        ([1.0] * 80 + [50.0] * 20, [1.0] * 100, True),
        ([0.0012] * 100, [0.0001] * 98 + [0.0002] * 2, True),
        ([0.0001] * 60 + [0.0019] * 40, [0.0001] * 100, False),  # below what counts as slow
    ],
)
def test_slower_is_what_takes_longer_in_turns(
    new: list[float], old: list[float], slower: bool
) -> None:
    assert paired(new, old).is_slower(3) is slower
