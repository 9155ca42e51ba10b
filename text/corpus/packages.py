"""Reads package descriptions: apt's ``Packages`` and ``Translation-LANG`` lists.

A translation belongs to a package's description of the same MD5. The group is the source package,
so that ``libfoo1`` and ``libfoo-dev`` are never divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from text.corpus.archives import Archives, read_list
from text.corpus.debian import locale_of
from text.corpus.entry import Entry, rows_of

SOURCE = "packages"
_FIELD = re.compile(r"^(Package|Source|Section|Tag|Description-md5): ((?:.|\n )+)$", re.MULTILINE)
_TRANSLATION = re.compile(
    r"^Package: (\S+)\nDescription-md5: (\S+)\nDescription-[\w-]+: (.*)\n((?: .*\n?)*)",
    re.MULTILINE,
)
_UNTAGGED = "special::"  # of packages that are not, or not wholly, tagged by hand
_WRAPPER = re.compile(r"^(lib|python3?-|ruby-|golang-|node-|r-cran-|fonts-|haskell-)")
_PART = re.compile(r"[^\W\d_]{3,}")


class _Description(NamedTuple):
    title: str
    body: str


def read(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    translations = {lang: _translations(archives, lang) for lang in languages}
    seen: set[str] = set()
    for path in archives.lists("Packages"):
        archives.record_list(path)
        for stanza in read_list(path).split("\n\n"):
            fields: dict[str, str] = dict(_FIELD.findall(stanza))
            name, md5 = fields.get("Package", ""), fields.get("Description-md5", "")
            if not name or name in seen:  # a security update is listed again
                continue
            seen.add(name)
            texts = {
                lang: found
                for lang, known in translations.items()
                if (found := known.get((name, md5)))
            }
            if texts:
                yield _entry(name, fields, texts, languages)


def _entry(
    name: str, fields: dict[str, str], texts: dict[str, _Description], languages: Sequence[str]
) -> Entry:
    family = fields.get("Source", name).split()[0]
    tags = re.split(r",\s+", fields["Tag"]) if "Tag" in fields else []
    if any(tag.startswith(_UNTAGGED) for tag in tags):
        tags = []
    meta = {
        "labels": {"section": fields.get("Section", "").rpartition("/")[2]},
        "tags": sorted(tags),
        "names": names_of(name, family),
    }
    titles = {lang: text.title for lang, text in texts.items()}
    bodies = {lang: text.body for lang, text in texts.items()}
    rows = rows_of("title", titles, languages) + rows_of("body", bodies, languages)
    return Entry(SOURCE, name, f"{SOURCE}:{family}", rows, meta=meta)


def names_of(*names: str) -> list[str]:
    """Return the words of package names that a title or a description may give away."""
    found = {name.casefold() for name in names}
    for name in names:
        bare = _WRAPPER.sub("", name.casefold())
        found |= {bare, *_PART.findall(bare)}
    return sorted(found - {""})


def _translations(archives: Archives, lang: str) -> dict[tuple[str, str], _Description]:
    found = {}
    for path in archives.lists(f"Translation-{locale_of(lang)}"):
        archives.record_list(path)
        for name, md5, title, body in _TRANSLATION.findall(read_list(path)):
            found[name, md5] = _Description(title.strip(), _paragraphs(body))
    return found


def _paragraphs(body: str) -> str:
    """Join the lines of a long description to one a paragraph, verbatim lines too."""
    lines = [line.strip() for line in body.splitlines()]
    text = " ".join("\n" if line == "." else line for line in lines)
    return re.sub(r" *\n *", "\n", text).strip()
