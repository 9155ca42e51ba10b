"""Golden bytes: what a format wrote once, every later codec must read.

``python -m tests.feature_store.golden_records`` writes the folder of the current format. It refuses
to touch one that exists: formats already in the field never change.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from feature_store.codec import CONTENT_FORMAT, FORMAT, ItemCodec, UserCodec, encode_history
from feature_store.contents import Contents
from feature_store.contract import MAX_ID
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.user_samples import SCHEMA, user_rows

GOLDEN = Path(__file__).parent / "golden"
ITEM_IDS = ids(0, 1, 77_777_777_777, MAX_ID)
HISTORIES = {0: ids(), 9: ids(5), 2**40: ids(3, 2, 1), MAX_ID: ids(MAX_ID, 0)}


USERS = Path(__file__).parent / "golden_users"
USER_IDS = ids(0, 7, MAX_ID)


CONTENTS = {0: [1], 7: [2**64 - 1, 0], MAX_ID: [0, 3, 2]}  # item -> origins, the row's first


def main() -> None:
    """Write the folders that are missing."""
    for folder, write in (
        (GOLDEN / f"v{FORMAT}", write_items),
        (GOLDEN / f"v{CONTENT_FORMAT}", write_contents),
        (USERS / f"v{FORMAT}", write_users),
    ):
        if not folder.exists():
            write()


def write_contents() -> None:
    folder = GOLDEN / f"v{CONTENT_FORMAT}"
    folder.mkdir(parents=True)
    (folder / "schema.yaml").write_text(SHOP.to_yaml())
    item_ids = ids(*CONTENTS)
    rows = random_rows(SHOP, len(CONTENTS), seed=20_251_130)
    own = np.array([origins[0] for origins in CONTENTS.values()], np.uint64)
    contents = Contents.of("picture", own, SHOP.item_dtype)
    for at, (_, *others) in enumerate(CONTENTS.values()):
        contents.count[at] = len(others)
        contents.others[at, : len(others)] = np.array(others, np.uint64)
        contents.vectors[at, : len(others)] = at + np.arange(6)
    for item, record in zip(
        CONTENTS, ItemCodec(SHOP).encode(item_ids, rows, contents), strict=True
    ):
        (folder / f"item-{item}.bin").write_bytes(record)
    expected = {str(item): contents.digests(at) for at, item in enumerate(CONTENTS)}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def write_users() -> None:
    folder = USERS / f"v{FORMAT}"
    folder.mkdir(parents=True)
    (folder / "schema.yaml").write_text(SCHEMA.to_yaml())
    rows = user_rows(len(USER_IDS), seed=20_251_129)
    for user, record in zip(USER_IDS, UserCodec(SCHEMA).encode(USER_IDS, rows), strict=True):
        (folder / f"user-{user}.bin").write_bytes(record)
    expected = {
        str(user): {name: rows[name][at].tolist() for name in rows.dtype.names or ()}
        for at, user in enumerate(USER_IDS.tolist())
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def write_items() -> None:
    folder = GOLDEN / f"v{FORMAT}"
    folder.mkdir(parents=True)
    (folder / "schema.yaml").write_text(SHOP.to_yaml())
    rows = random_rows(SHOP, len(ITEM_IDS), seed=20_251_121)
    rows[0] = np.zeros((), SHOP.item_dtype)
    items = {
        str(item): {name: rows[name][at].tolist() for name in SHOP.item_dtype.names or ()}
        for at, item in enumerate(ITEM_IDS.tolist())
    }
    for item, record in zip(items, ItemCodec(SHOP).encode(ITEM_IDS, rows), strict=True):
        (folder / f"item-{item}.bin").write_bytes(record)
    for user, newest_first in HISTORIES.items():
        (folder / f"history-{user}.bin").write_bytes(encode_history(user, newest_first))
    expected = {"items": items, "histories": {str(u): h.tolist() for u, h in HISTORIES.items()}}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
