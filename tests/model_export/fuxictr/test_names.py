"""The tensors that the documentation lists are those that are read."""

from __future__ import annotations

import re
from pathlib import Path

from model_export.fuxictr.names import LEVELS, PUBLISHED, layer_keys

PAGE = Path(__file__).parents[3] / "docs/model-export.md"


def test_the_table_of_tensors_is_that_of_the_code() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("| tensor | shape |")[2]
    table = section.partition("\n\n")[0]
    written = {}
    for names, remark, shape in re.findall(
        r"^\| (`.*`)(, level variant)? \| `(.*)` \|$", table, re.M
    ):
        for name in re.findall(r"`(\S+)`", names):
            key = re.sub(r"^T\.", "embedding_layer.embedding_layer.", name)
            written[key] = (shape, bool(remark))
    layers = {key.replace(".0.", ".i.", 1): shape for key, shape in layer_keys(0).items()}
    read = {
        key: (f"({', '.join(map(str, shape))})", key not in {**PUBLISHED.shapes, **layers})
        for key, shape in {**LEVELS.shapes, **layers}.items()
    }
    assert written == read
