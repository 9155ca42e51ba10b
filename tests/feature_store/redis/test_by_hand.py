"""The ``redis-cli`` lines of docs/feature-store.md, typed as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.contract import Append
from feature_store.schema import FeatureSchema
from tests.feature_store.redis_servers import Server, standalone
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

DOCUMENT = Path(__file__).parents[3] / "docs" / "feature-store.md"
LINES = re.findall(r"^redis-cli (?!ACL)([^#\n]*)", DOCUMENT.read_text(), re.M)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Of its own: the lines use the default prefix."""
    with standalone(tmp_path / "redis") as server:
        yield server


def type_in(server: Server, start: str) -> str:
    [line] = [line for line in LINES if line.startswith(start)]
    return server.cli(*shlex.split(line))


async def test_every_documented_line_does_what_it_says(server: Server) -> None:
    store = await connect(f"redis://127.0.0.1:{server.port}", SHOP, create=True)
    await store.append(7, [3, 4])
    await store.put_items(ids(17, 81), random_rows(SHOP, 2))

    def typed(start: str) -> str:
        return type_in(server, start)

    assert typed("LRANGE").split() == ["4", "3"]
    assert typed("LPUSH").strip() == "3"
    found = await store.history(7)
    assert found is not None
    assert found.tolist() == [81, 4, 3]
    assert typed("LTRIM").strip() == "OK"
    assert typed("EXPIRE").strip() == "1"
    assert server.client().ttl("qin:h:{7}") > 0
    assert typed("SCARD").strip() == "2"
    assert typed("XREVRANGE").splitlines()[1:3] == ["ids", "17 81"]
    assert FeatureSchema.from_yaml(typed("HGET"), source="it") == SHOP
    assert typed("DEL").strip() == "1"
    assert await store.history(7) is None
    assert (
        len(LINES) == 9
    )  # or a new line is not tried here (ACL: service/lifecycle/test_permissions)
    await store.close()


async def test_the_documented_lines_read_and_forget_text_ids(server: Server) -> None:
    store = await connect(f"redis://127.0.0.1:{server.port}", SHOP, create=True, ids="mapped")
    await store.name_items({81: "sku-81"})
    await store.append_all([Append(7, [81], user_text="ada")])
    assert type_in(server, "GET").strip() == "sku-81"
    assert await store.user_texts([7]) == ["ada"]
    assert type_in(server, "DEL").strip() == "2"
    assert await store.user_texts([7]) == [None]
    await store.close()
