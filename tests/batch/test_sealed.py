"""Content that is not as it was written is taken for missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.output.sealed import sealed, unsealed

CONTENT = {"lengths": [1, 2], "reasons": ["null"]}
WHOLE = sealed(CONTENT)


def test_sealed_content_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(WHOLE)
    assert unsealed(tmp_path / "a.json") == CONTENT
    assert unsealed(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "damaged",
    [
        *(b"", b"[]", b"{}", b'"text"', WHOLE[:-1]),
        WHOLE.replace(b"[1,2]", b"[1,3]"),
        WHOLE.replace(b"null", b"mull"),
        WHOLE.replace(b'"sha256":"', b'"sha256":"0'),
    ],
)
def test_changed_content_is_missing(tmp_path: Path, damaged: bytes) -> None:
    assert damaged != WHOLE
    (tmp_path / "a.json").write_bytes(damaged)
    assert unsealed(tmp_path / "a.json") is None
