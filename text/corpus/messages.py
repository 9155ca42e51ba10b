"""Reads translated messages: gettext's ``.mo`` and ``.po`` files, whose keys are English."""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from text.corpus.archives import Archives
from text.corpus.debian import locale_of
from text.corpus.entry import Entry, rows_of
from text.corpus.errors import CorpusError
from text.corpus.help_pages import plain
from text.corpus.split import hash_of

LIBREOFFICE = "libreoffice-l10n"
GNUCASH = "gnucash"
GUIDE = "installation-guide"
_ACCELERATOR = re.compile(r"(?<!\w)[_~&](?=\w)|(?<=\w)[_~&](?=\w)|\(&?[_~]?\w\)$")
_QUOTED = re.compile(r'^"(.*)"$', re.MULTILINE)
_ESCAPE = re.compile(r"\\(.)")


def libreoffice(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    files = (
        (lang, content)
        for lang in languages
        if lang != "en"
        for _, content in archives.files(
            f"libreoffice-l10n-{lang}", r"usr/lib/libreoffice/program/resource/.*/\w+\.mo"
        )
    )
    return _messages(LIBREOFFICE, files, languages)


def gnucash(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    locales = {locale_of(lang): lang for lang in languages if lang != "en"}
    form = r"usr/share/locale/([\w@]+)/LC_MESSAGES/gnucash\.mo"
    files = (
        (locales[match[1]], content)
        for match, content in archives.files("gnucash-common", form)
        if match[1] in locales
    )
    return _messages(GNUCASH, files, languages)


def _messages(
    source: str, files: Iterable[tuple[str, bytes]], languages: Sequence[str]
) -> Iterator[Entry]:
    """Yield an entry a message; contexts of the same English text are one group."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for lang, content in files:
        for key, translated in mo(content):
            texts[key].setdefault(lang, text_of(translated))
    for key, found in texts.items():
        english = text_of(key.rpartition("\x04")[2])
        group = f"{source}:{hash_of(english):016x}"
        rows = rows_of("text", found | {"en": english}, languages)
        yield Entry(source, f"{hash_of(key):016x}", group, rows)


def guide(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Debian's installation guide: an entry a paragraph, and one a chapter, for long documents."""
    locales = {locale_of(lang): lang for lang in languages if lang != "en"}
    texts: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for match, content in archives.files(GUIDE, r"[^/]+/po/([\w@]+)/([\w-]+)\.po"):
        if match[1] in locales:
            for key, translated in po(content.decode("utf-8", "replace")):
                texts[match[2], key][locales[match[1]]] = plain(translated)
    chapters: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (chapter, key), found in texts.items():
        found["en"] = plain(key)
        rows = rows_of("text", found, languages)
        for _, lang, text in rows:
            chapters[chapter][lang].append(text)
        yield Entry(GUIDE, f"{chapter}#{hash_of(key):016x}", f"{GUIDE}:{chapter}", rows)
    for chapter, lines in chapters.items():
        pages = {lang: "\n".join(found) for lang, found in lines.items()}
        yield Entry(GUIDE, chapter, f"{GUIDE}:{chapter}", rows_of("page", pages, languages))


def text_of(message: str) -> str:
    """Return a message as read: the singular, without markup and marks of keyboard shortcuts."""
    return _ACCELERATOR.sub("", plain(message.partition("\0")[0].replace("\\n", " ")))


def mo(content: bytes) -> Iterator[tuple[str, str]]:
    """Key and translation of a ``.mo`` file, with contexts (``context\\x04key``)."""
    if len(content) < 28 or struct.unpack_from("<I", content)[0] != 0x950412DE:
        raise CorpusError("a .mo file that does not begin as one")
    _, _, count, keys, texts = struct.unpack_from("<5I", content)
    for number in range(count):
        pair = []
        for table in (keys, texts):
            length, start = struct.unpack_from("<2I", content, table + 8 * number)
            pair.append(content[start : start + length].decode("utf-8", "replace"))
        if pair[0]:  # the empty key has the header
            yield pair[0].partition("\0")[0], pair[1]


def po(content: str) -> Iterator[tuple[str, str]]:
    """Key and translation of a ``.po`` file, without those that are fuzzy or obsolete."""
    for block in re.split(r"\n\s*\n", content):
        if re.search(r"^#(,.*\bfuzzy\b|~)", block, re.MULTILINE):
            continue
        key, _, translated = block.partition("\nmsgstr ")
        key = _string(key.rpartition("msgid ")[2])
        if key and (text := _string(translated)):
            yield key, text


def _string(quoted: str) -> str:
    joined = "".join(_QUOTED.findall(quoted))
    return _ESCAPE.sub(lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), joined)
