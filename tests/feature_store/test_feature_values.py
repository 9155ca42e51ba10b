"""Items as JSON values: what is taken, and which feature an error names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from feature_store.feature_values import FeatureValueError, item_row, set_values
from tests.feature_store.samples import SHOP, bounded, random_rows

WHOLE = {
    "sku": 12,
    "brand": 3,
    "colours": [4, 5],
    "picture": [0.5, 1, -2.25, 0, 0, 65_504],
    "price": [9.75],
    "stock_level": 2,
}


def test_a_whole_item_becomes_a_row() -> None:
    row = item_row(SHOP, WHOLE)
    assert row.shape == (1,)
    assert row["sku"].tolist() == [12]
    assert row["colours"].tolist() == [[0, 4, 5]]
    assert row["picture"].tolist() == [[0.5, 1, -2.25, 0, 0, 65_504]]
    assert item_row(SHOP, WHOLE | {"price": 9.75}) == row


@pytest.mark.parametrize("feature", WHOLE)
def test_a_whole_item_needs_every_feature(feature: str) -> None:
    with pytest.raises(FeatureValueError, match=f"{feature}: is missing") as caught:
        item_row(SHOP, {name: value for name, value in WHOLE.items() if name != feature})
    assert caught.value.feature == feature


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ("sku", -1),
        ("sku", 2**31),
        pytest.param("sku", 10**5_000, id="5,000 digits"),
        ("sku", 1.0),
        ("sku", True),
        ("sku", None),
        ("sku", "1"),
        pytest.param("sku", "1" * 10_000, id="a long text"),
        ("colours", 1),
        ("colours", [1, 2, 3, 4]),
        ("colours", [1, -2]),
        ("colours", [[1]]),
        ("picture", [0.5] * 5),
        ("picture", [0.5] * 7),
        ("picture", [0.5] * 5 + [float("nan")]),
        ("picture", [0.5] * 5 + [float("inf")]),
        ("picture", [0.5] * 5 + [65_505]),
        ("picture", [0.5] * 5 + ["1"]),
        ("picture", [0.5] * 5 + [False]),
        ("picture", 0.5),
        ("price", 1e39),
        pytest.param("price", 10**5_000, id="price of 5,000 digits"),
        ("price", []),
        ("stock_level", -1),
        ("weight", 1),
    ],
)
def test_a_wrong_value_names_its_feature_and_changes_nothing(feature: str, value: Any) -> None:
    row = random_rows(SHOP, 1)
    before = row.tobytes()
    with pytest.raises(FeatureValueError) as caught:
        set_values(SHOP.stored_item, row, {"brand": 1, feature: value})
    assert caught.value.feature == feature
    assert len(str(caught.value)) < 200
    assert row.tobytes() == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (True, "true"), (False, "false"), ([1], "a list"), ({}, "an object")],
)
@pytest.mark.parametrize(
    ("feature", "wanted"), [("sku", "integer in 0 … 2147483647"), ("price", "number")]
)
def test_a_value_of_another_type_is_named_as_json_has_it(
    feature: str, wanted: str, value: Any, shown: str
) -> None:
    given = value if feature == "sku" else [value]
    with pytest.raises(FeatureValueError, match=f"{shown} is not an? {wanted}"):
        set_values(SHOP.stored_item, random_rows(SHOP, 1), {feature: given})


@pytest.mark.parametrize(
    ("feature", "value", "place"),
    [
        ("picture", [0.5, 1e5, 0.5, 0.5, 0.5, 0.5], ("picture", 1)),
        ("picture", [0.5] * 5 + ["1"], ("picture", 5)),
        ("picture", [0.5] * 5, ("picture",)),
        ("colours", [1, -2], ("colours", 1)),
        ("price", [1e39], ("price", 0)),
        ("price", 1e39, ("price",)),
    ],
)
def test_a_wrong_element_of_a_list_is_named_by_its_place(
    feature: str, value: Any, place: tuple[str | int, ...]
) -> None:
    with pytest.raises(FeatureValueError) as caught:
        set_values(SHOP.stored_item, random_rows(SHOP, 1), {feature: value})
    assert caught.value.place == place
    assert str(caught.value).startswith(".".join(map(str, place)) + ": ")


@pytest.mark.parametrize("value", [2.0, -2.0, 0.3000488, 0])
def test_what_is_within_max_abs_is_taken(value: float) -> None:
    """Also what a stored value at the bound reads as: float16 rounds 0.3 up."""
    least = bounded(0.3 if abs(value) < 1 else 2.0)
    set_values(least.stored_item, random_rows(SHOP, 1), {"picture": [value] * 6})


@pytest.mark.parametrize("value", [2.01, -3, 1e300, float("nan"), float("-inf")])
def test_what_is_beyond_max_abs_is_refused_by_its_name(value: float) -> None:
    with pytest.raises(FeatureValueError, match=r"^picture\.4: .* not finite within max_abs 2$"):
        set_values(
            bounded(2).stored_item, random_rows(SHOP, 1), {"picture": [0.5] * 4 + [value, 0.5]}
        )


def test_only_what_is_named_is_changed() -> None:
    row = random_rows(SHOP, 1)
    before = row.copy()
    set_values(SHOP.stored_item, row, {"stock_level": 3})
    assert row["stock_level"].tolist() == [3]
    before["stock_level"] = 3
    assert np.array_equal(row, before)
