"""Reads LibreOffice's help: pages whose paragraphs have the same ids in every language."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence

from text.corpus.archives import Archives
from text.corpus.entry import Entry, Row, rows_of

SOURCE = "libreoffice-help"
LEAST_WORDS = 30  # of a page
_PAGE = r"usr/share/libreoffice/help/[\w-]+/text/((\w+)/.+)\.html"
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_KEYWORDS = re.compile(r'<meta itemprop="keywords" content="([^"]*)"')
_PARAGRAPH = re.compile(r'<(p|h[1-6]) id="((?:par|hd)_id[^"]*)"[^>]*>(.*?)</\1>', re.DOTALL)
_CODE = re.compile(r"<(pre|code)\b.*?</\1>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_ENTITY = re.compile(r"&([\w.-]+);")  # of a document's own: ``&debian-gnu;``


def package_of(lang: str) -> str:
    return f"libreoffice-help-{'en-us' if lang == 'en' else lang}"


class _Page:
    """One page in one language."""

    def __init__(self, source: str) -> None:
        title = _TITLE.search(source)
        self.title = plain(title[1]) if title else ""
        self.keywords = list(dict.fromkeys(map(_keyword, _KEYWORDS.findall(source))))
        self.paragraphs = {
            name: text
            for _, name, inner in _PARAGRAPH.findall(_CODE.sub(" ", source))
            if (text := plain(inner))
        }
        self.text = "\n".join(self.paragraphs.values())


def read(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry a page (title, keywords, whole text), and one a paragraph."""
    pages: dict[str, dict[str, _Page]] = {}
    modules = {}
    for lang in languages:
        for match, content in archives.files(package_of(lang), _PAGE):
            pages.setdefault(match[1], {})[lang] = _Page(content.decode("utf-8", "replace"))
            modules[match[1]] = match[2]
    for name, page in pages.items():
        group = f"{SOURCE}:{name}"
        yield _page(name, group, page, languages, modules[name])
        ids = dict.fromkeys(key for each in page.values() for key in each.paragraphs)
        for key in ids:
            texts = {lang: each.paragraphs.get(key, "") for lang, each in page.items()}
            yield Entry(SOURCE, f"{name}#{key}", group, rows_of("text", texts, languages))


def _page(
    name: str, group: str, page: Mapping[str, _Page], languages: Sequence[str], module: str
) -> Entry:
    rows = rows_of("title", {lang: each.title for lang, each in page.items()}, languages)
    rows += [
        Row("keyword", lang, keyword)
        for lang in languages
        if lang in page
        for keyword in page[lang].keywords
    ]
    whole = {
        lang: each.text for lang, each in page.items() if len(each.text.split()) >= LEAST_WORDS
    }
    rows += rows_of("page", whole, languages)
    return Entry(SOURCE, name, group, rows, meta={"labels": {"module": module}})


def plain(markup: str) -> str:
    """Return the text of a piece of markup, in one line."""
    return " ".join(_ENTITY.sub(r"\1", html.unescape(_TAG.sub("", markup))).split())


def _keyword(content: str) -> str:
    """Space an index entry and its subentry: ``solver,for Calc`` → ``solver, for Calc``."""
    return re.sub(r"\s*[,;]\s*", ", ", html.unescape(content)).strip()
