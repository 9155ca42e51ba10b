"""Every id of the OpenAPI documents is a 64-bit integer with its bounds, as generated clients in
Java, C# and Go need it: without a ``format`` they take 32 bits and overflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from feature_store.contract import MAX_ID
from service.api.admin import create_admin
from service.api.app import create_app
from service.api.ids import TEXT
from service.api.item_schema import INDEX
from tests.service.in_process import opened
from tests.service.world import World

IDS = {"user_id", "item_id", "item_ids", "candidates", "history"}
IDS |= {"unknown_items", "unreadable_items", "cold_items", "unknown_history"}
LARGEST_32 = 2**31 - 1
TOKEN = "a-token-of-the-tests"
# Counts, sizes, statuses and positions that no client has to hold in 64 bits; none is an id.
SMALL = {"status", "limit_bytes", "applied", "repeated", "index", "parameters", "shape"}

Schema = dict[str, Any]


async def document(world: World, port: str) -> Schema:
    """As the port that takes clicks and items answers it."""
    place: Any = port
    async with opened(world, events_on=place, writes_on=place, admin_token=TOKEN) as state:
        app = create_app(state) if port == "service" else create_admin(state)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            found: Schema = (await client.get("/openapi.json")).json()
    return found


def integers(node: Any, name: str = "") -> Iterator[tuple[str, Schema]]:
    """Every integer schema at any depth, with the property or parameter that it belongs to."""
    if isinstance(node, list):
        for child in node:
            yield from integers(child, name)
        return
    if not isinstance(node, dict):
        return
    if node.get("type") == "integer":
        yield name, node
    for key, child in node.items():
        if key in ("properties", "$defs", "schemas"):
            for property_name, schema in child.items():
                yield from integers(schema, property_name)
        elif key not in ("example", "examples"):
            yield from integers(child, node["name"] if key == "schema" and "in" in node else name)


@pytest.mark.parametrize(
    ("port", "expected"),
    [("service", IDS), ("admin", {"user_id", "item_id", "item_ids"})],
)
async def test_every_id_is_an_int64_with_its_bounds(
    world: World, port: str, expected: set[str]
) -> None:
    everything = integers(await document(world, port))
    # An item's body has a feature of the name ``item_id``: the index of its embedding.
    found = [(name, schema) for name, schema in everything if name in IDS and schema != INDEX]
    assert {name for name, _ in found} == expected
    for name, schema in found:
        bounds = (schema.get("format"), schema.get("minimum"), schema.get("maximum"))
        assert bounds == ("int64", 0, MAX_ID), (name, schema)


@pytest.mark.parametrize("port", ["service", "admin"])
async def test_every_integer_that_may_need_64_bits_says_so(world: World, port: str) -> None:
    found = list(integers(await document(world, port)))
    assert found
    for name, schema in found:
        if name not in SMALL and schema.get("maximum", MAX_ID) > LARGEST_32:
            assert schema.get("format") == "int64", (name, schema)


@pytest.mark.parametrize("port", ["service", "admin"])
async def test_the_format_is_of_integers_alone(world: World, port: str) -> None:
    """Beside a choice of types it would be the strings' as well, which generators refuse."""
    found = json.dumps(await document(world, port)).count('"int64"')
    assert found == sum(
        s.get("format") == "int64" for _, s in integers(await document(world, port))
    )


@pytest.mark.parametrize("number", [0, 7, 10**18 - 1, 10**18, 2**53 + 1, MAX_ID - 1, MAX_ID])
def test_the_pattern_of_text_matches_every_id(number: int) -> None:
    assert re.search(TEXT["pattern"], str(number))
    assert re.search(TEXT["pattern"], f"{number:019d}")


@pytest.mark.parametrize("text", ["", "-1", "1.0", " 1", "x", str(MAX_ID + 1), "9" * 19, "1" * 20])
def test_the_pattern_of_text_matches_nothing_else(text: str) -> None:
    assert not re.search(TEXT["pattern"], text)
