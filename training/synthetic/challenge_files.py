"""Writes parquet files in the challenge's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.synthetic.click_model import Indices, Items
from training.synthetic.tagged_items import TaggedItems


def write_items(folder: Path, items: Items) -> None:
    """Write ``item_info`` (row number = item id, row 0 all zeros) and ``item_feature``."""
    ids = np.arange(len(items.tags))
    tags = _lists(items.tags)
    info = {
        "item_id": pa.array(ids),
        "item_tags": tags,
        "item_emb_d128": _lists(items.content.astype(np.float64)),
    }
    feature = {
        "item_id": pa.array(ids[1:]),
        "item_title": pa.array([f"Item {item}" for item in ids[1:].tolist()]),
        "item_tags": tags[1:],
        "likes_level": pa.array(items.levels[1:, 0]),
        "views_level": pa.array(items.levels[1:, 1]),
    }
    pq.write_table(pa.table(info), folder / "item_info.parquet", compression="zstd")
    pq.write_table(pa.table(feature), folder / "item_feature.parquet", compression="zstd")


def write_catalogue(
    folder: Path, items: Items, catalogue: TaggedItems, alone: NDArray[np.bool_]
) -> None:
    """Write ``item_text``, ``item_planted`` and ``item_feature`` (row n is item n + 1).

    alone (N,): items of which only the text in the second language is written.
    """
    ids = pa.array(np.arange(1, len(items.latent)))
    texts = {"item_id": ids, "name": pa.array(catalogue.names)}
    for number, (lang, own) in enumerate(catalogue.texts.items()):
        shown = [None if hide and number != 1 else t for t, hide in zip(own, alone, strict=True)]
        texts[f"text_{lang.replace('-', '_')}"] = pa.array(shown, pa.string())
    planted = {"item_id": ids, "item_emb_d128": _lists(items.content[1:].astype(np.float64))}
    feature = {
        "item_id": ids,
        "item_title": pa.array(catalogue.names),
        "likes_level": pa.array(items.levels[1:, 0]),
        "views_level": pa.array(items.levels[1:, 1]),
    }
    for name, columns in (("text", texts), ("planted", planted), ("feature", feature)):
        pq.write_table(pa.table(columns), folder / f"item_{name}.parquet", compression="zstd")


def write_users(folder: Path, ids: Indices, index: Indices, country: Indices) -> None:
    """Write ``user_info``, (U,) each; an index of 0 is none."""
    users = {"user_id": pa.array(ids), "user_index": pa.array(index), "country": pa.array(country)}
    pq.write_table(pa.table(users), folder / "user_info.parquet", compression="zstd")


class RowFile:
    """Writes ``train``, ``valid`` or ``test`` by row groups; ``test`` has ``ID`` for a label."""

    def __init__(self, path: Path, items: Items, *, labelled: bool, requests: bool = False) -> None:
        self._items, self._labelled, self._rows = items, labelled, 0
        numbers = ("user_id", "item_seq", "item_id", "likes_level", "views_level")
        kinds = {name: pa.int64() for name in numbers} | {"item_seq": pa.list_(pa.int64())}
        kinds |= {"device": pa.int64(), "hour": pa.float32()} if requests else {}
        kinds |= {"label": pa.float64()} if labelled else {"ID": pa.int64()}
        self._schema = pa.schema(list(kinds.items()))
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(
        self,
        user: Indices,
        history: Indices,
        target: Indices,
        label: NDArray[np.bool_],
        requests: Sequence[pa.Array] = (),
    ) -> None:
        """Write user (n,), history (n, L), target (n,), label (n,); device and hour (n,)."""
        levels = self._items.levels[target]
        number = np.arange(self._rows, self._rows + len(user))
        last = label.astype(np.float64) if self._labelled else number
        columns = [user, _lists(history), target, levels[:, 0], levels[:, 1], *requests, last]
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows += len(user)

    def close(self) -> None:
        self._writer.close()


def _lists(values: NDArray[np.generic]) -> pa.Array:
    """Convert (n, width) to n lists."""
    rows, width = values.shape
    offsets = pa.array(np.arange(rows + 1) * width).cast(pa.int32())  # ArrowInvalid if too many
    return pa.ListArray.from_arrays(offsets, values.ravel())
