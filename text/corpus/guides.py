"""Reads guides: GNOME's help (Mallard pages, aligned by elements) and the Debian Reference."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from text.corpus.archives import Archives
from text.corpus.debian import locale_of
from text.corpus.entry import Entry, Row, rows_of
from text.corpus.help_pages import plain

GNOME = "gnome-user-docs"
REFERENCE = "debian-reference"
_MALLARD = "{http://projectmallard.org/1.0/}"
_BLOCKS = {f"{_MALLARD}{tag}" for tag in ("title", "desc", "p")}
_REFERENCE_FORM = r"usr/share/debian-reference/((?:ch|ap|pr)\w+)\.([\w-]+)\.html"
_REFERENCE_BLOCK = re.compile(r"<(p|h[1-6]|dt|dd|li|td)\b[^>]*>(.*?)</\1>", re.DOTALL)
_TOC = re.compile(r'<div class="(?:toc|navheader|navfooter|list-of-\w+)">.*?</dl>', re.DOTALL)


def gnome(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry a page and an entry a block. A translation whose blocks are not those
    of the English page, in order, is not aligned with it.
    """
    folders = {"C" if lang == "en" else locale_of(lang): lang for lang in languages}
    pages: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(dict)
    for match, content in archives.files(GNOME, r"usr/share/help/([\w@]+)/([\w-]+/[\w-]+)\.page"):
        if match[1] in folders:
            pages[match[2]][folders[match[1]]] = _blocks(content)
    for name, page in pages.items():
        group = f"{GNOME}:{name}"
        whole = {lang: "\n".join(text for _, text in blocks) for lang, blocks in page.items()}
        meta = {"labels": {"guide": name.partition("/")[0]}}
        yield Entry(GNOME, name, group, rows_of("page", whole, languages), meta=meta)
        shapes = {lang: [tag for tag, _ in blocks] for lang, blocks in page.items()}
        main = next(lang for lang in languages if lang in page)
        aligned = [lang for lang in languages if shapes.get(lang) == shapes[main]]
        for number in range(len(shapes[main])):
            texts = {lang: page[lang][number][1] for lang in aligned}
            yield Entry(GNOME, f"{name}#{number}", group, rows_of("text", texts, languages))
        for lang in page.keys() - set(aligned):
            for number, (_, text) in enumerate(page[lang]):
                rows = [Row("text", lang, text)]
                yield Entry(GNOME, f"{name}#{number}-{lang}", group, rows)


def _blocks(content: bytes) -> list[tuple[str, str]]:
    """Return tag and text of the page's titles and paragraphs, in the order of the document."""
    root = ElementTree.fromstring(content)  # noqa: S314
    return [
        (element.tag, " ".join("".join(element.itertext()).split()))
        for element in root.iter()
        if element.tag in _BLOCKS
    ]


def package_of(lang: str) -> str:
    return f"{REFERENCE}-{lang}"


def reference(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry a chapter. Its paragraphs are texts, not aligned over languages."""
    chapters: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for lang in languages:
        for match, content in archives.files(package_of(lang), _REFERENCE_FORM):
            markup = _TOC.sub(" ", content.decode("utf-8", "replace"))
            texts = (plain(inner) for _, inner in _REFERENCE_BLOCK.findall(markup))
            chapters[match[1]][lang] = [text for text in texts if text]
    for name, chapter in chapters.items():
        group = f"{REFERENCE}:{name}"
        whole = {lang: "\n".join(blocks) for lang, blocks in chapter.items()}
        yield Entry(REFERENCE, name, group, rows_of("page", whole, languages))
        for lang, blocks in chapter.items():
            for number, block in enumerate(blocks):
                rows = [Row("text", lang, block)]
                yield Entry(REFERENCE, f"{name}#{number}-{lang}", group, rows)
