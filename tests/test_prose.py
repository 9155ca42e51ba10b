"""What ``docs/prose.py`` counts, and when it fails."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = '''
"""Nobody in a docstring."""
import logging
# whoever in a comment
KEY = "whatever"
def f(x):
    logging.info(f"somebody sent {x} and anybody saw")
    raise ValueError("everybody sent a value")
'''


@pytest.fixture(scope="module")
def prose() -> Any:
    path = Path(__file__).resolve().parents[1] / "docs" / "prose.py"
    spec = importlib.util.spec_from_file_location("prose", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_comments_docstrings_and_sentences_are_counted_and_other_strings_not(prose: Any) -> None:
    assert prose.counted(prose.texts_of(SOURCE)).avoided == 5  # all but KEY's


def test_markdown_is_counted_without_its_fenced_code(prose: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Nobody waits.\n\n```\nwhoever\n```\n")
    assert prose.counts(tmp_path, [], [page]) == {prose.DOCS: prose.Count(2, 1)}


def test_a_room_above_its_ceiling_is_named(prose: Any) -> None:
    assert not list(prose.excesses({"text": prose.Count(2000, 1)}))
    (excess,) = prose.excesses({"text": prose.Count(2000, 2), "batch": prose.Count(10, 0)})
    assert excess.startswith("text: 1.00 ")
