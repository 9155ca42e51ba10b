"""Reads Bibles of the SWORD project (zText modules): verses, aligned by book, chapter and number.

A module is a list of slots: a book's heading, a chapter's heading (with its name), its verses.
Verse numbers are counted within the chapter, because versifications differ in their lengths.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from text.corpus.archives import Archives
from text.corpus.entry import Entry, rows_of
from text.corpus.errors import CorpusError
from text.corpus.help_pages import plain

SOURCE = "bible"
PACKAGES = {"en": "sword-text-web", "es": "sword-text-sparv"}
_FORM = r"usr/share/sword/modules/.*/([on]t\.bz[svz])"
_CHAPTER = re.compile(r'<chapter [^>]*osisID="(\w+\.\d+)"')
_BOOK = re.compile(r'<div [^>]*type="book"')
_SPACE = re.compile(r" (?=[,.;:!?’”)])|(?<=[“‘(¿¡]) ")  # left where words are marked up
_NOTE = re.compile(r"<(note|title)\b.*?</\1>", re.DOTALL)


def read(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    verses: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for lang in languages:
        if lang in PACKAGES:
            for chapter, number, text in _verses(archives, PACKAGES[lang]):
                verses[chapter, number][lang] = text
    for (chapter, number), texts in verses.items():
        rows = rows_of("text", texts, languages)
        yield Entry(SOURCE, f"{chapter}.{number}", f"{SOURCE}:{chapter}", rows)


def _verses(archives: Archives, package: str) -> Iterator[tuple[str, int, str]]:
    parts = {match[1]: content for match, content in archives.files(package, _FORM)}
    for testament in ("ot", "nt"):
        if f"{testament}.bzz" not in parts:
            continue
        chapter, number = "", 0
        for slot in slots(*(parts[f"{testament}.bz{part}"] for part in "svz")):
            if found := _CHAPTER.search(slot):
                chapter, number = found[1], 0
            elif _BOOK.search(slot):
                chapter = ""
            elif chapter:
                number += 1
                if text := plain(_NOTE.sub("", slot).replace("<", " <")):
                    yield chapter, number, _SPACE.sub("", text)


def slots(blocks: bytes, verses: bytes, packed: bytes) -> Iterator[str]:
    """Yield the slots of a testament. ``blocks``: offset, size, unpacked size of each block;
    ``verses``: block, offset, size of each slot; little-endian.
    """
    try:
        texts = [
            zlib.decompress(packed[start : start + size])
            for start, size, _ in struct.iter_unpack("<III", blocks)
        ]
        for block, start, size in struct.iter_unpack("<IIH", verses):
            yield texts[block][start : start + size].decode("utf-8", "replace") if size else ""
    except (struct.error, zlib.error, IndexError) as error:
        raise CorpusError(f"a SWORD module that cannot be read: {error}") from error
