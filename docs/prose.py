"""Counts words that the project's prose avoids. ``python docs/check.py --prose`` prints the table.

"nobody", "whoever" and their like make persons of things and withhold the field's term. They are
counted per 1,000 words of

- comments and docstrings of the product's Python;
- its texts for users: other string literals of at least ``SENTENCE`` words (error messages, help
  texts, descriptions of settings), of f-strings the constant parts;
- Markdown files, without fenced code: the room "docs".
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

AVOIDED = re.compile(
    r"\b(nobody|whoever|whatever|whichever|somebody|anybody|everybody)\b", re.IGNORECASE
)
WORD = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?")
DIRECTIVE = re.compile(r"(noqa|type): ?[\w\[\]:, -]*")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
SENTENCE = 4
DOCS = "docs"

MOST = 0.5  # per 1,000 words


@dataclass(frozen=True, slots=True)
class Count:
    words: int = 0
    avoided: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.words + other.words, self.avoided + other.avoided)

    @property
    def per_thousand(self) -> float:
        return 1e3 * self.avoided / max(self.words, 1)


def counted(texts: Iterable[str]) -> Count:
    joined = "\n".join(texts)
    return Count(len(WORD.findall(joined)), len(AVOIDED.findall(joined)))


def texts_of(source: str) -> Iterator[str]:
    """Comments, docstrings and sentences of a Python file."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield DIRECTIVE.sub("", token.string)
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None
        if isinstance(node.body[0], ast.Expr)
    }
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values):
                text = "_".join(str(v.value) for v in values if isinstance(v, ast.Constant))
            case ast.Constant(str(text)) if id(node) not in parts:
                pass
            case _:
                continue
        if id(node) in docstrings or len(WORD.findall(text)) >= SENTENCE:
            yield text


def counts(root: Path, rooms: Iterable[str], markdown: Iterable[Path]) -> dict[str, Count]:
    found = {
        room: counted(
            text for path in (root / room).rglob("*.py") for text in texts_of(path.read_text())
        )
        for room in rooms
        if (root / room).is_dir()
    }
    found[DOCS] = counted(FENCED.sub("", path.read_text()) for path in markdown)
    return found


def table(found: Mapping[str, Count]) -> str:
    total = sum(found.values(), Count())
    lines = [
        f"{room:14}{count.words:9,}{count.avoided:9}{count.per_thousand:9.2f}{MOST:9.2f}"
        for room, count in (*found.items(), ("total", total))
    ]
    head = f"{'room':14}{'words':>9}{'avoided':>9}{'/1,000':>9}{'at most':>9}"
    return "\n".join([head, *lines])


def excesses(found: Mapping[str, Count]) -> Iterator[str]:
    for room, count in found.items():
        if count.per_thousand > MOST:
            yield (
                f"{room}: {count.per_thousand:.2f} avoided words per 1,000 (nobody, whoever …), "
                f"at most {MOST}: see python docs/check.py --prose"
            )
