"""Reads dictionaries: Ding (German-English) and FreeDict (English and one other language).

Ding, a line: ``German; synonym | phrase :: English; synonym | phrase``: parts between bars are
translations of each other, one by one. FreeDict, in dictd's format: an index, ``headword``, offset
and size a line, and a packed text, ``headword /pronunciation/ <class>``, then lines of senses.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

from text.corpus.archives import Archives
from text.corpus.entry import Entry, Part, rows_of
from text.corpus.errors import CorpusError

DING = "trans-de-en"
FREEDICT = "freedict"
LEAST_WORDS = 3  # of the longer side of a phrase of Ding; shorter ones are words

# FreeDict's names of languages. Its German is Ding, its Polish has definitions among translations.
_NAMES = {"cs": "ces", "es": "spa", "fr": "fra", "it": "ita", "nl": "nld", "pt": "por", "sv": "swe"}
_SEMICOLON = re.compile(r";(?![^()]*\))")  # not within parentheses
_REMARK = re.compile(r"\{[^}]*\}|\[[^\]]*\]|/[^/]*/|<[^>]*>")
_NUMBER = re.compile(r"^\s*(\d+|[IVX]+)\.\s")  # of a sense
_DIGITS = {
    digit: value
    for value, digit in enumerate(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    )
}


def ding(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry a translation; none if English or German is not wanted."""
    if not {"de", "en"} <= set(languages):
        return
    for _, content in archives.files(DING, r"usr/share/trans/de-en"):
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines()):
            if not line.startswith("#"):
                for place, (german, english) in enumerate(translations(line)):
                    spaces = max(german.count(" "), english.count(" "))
                    part: Part = "text" if spaces >= LEAST_WORDS - 1 else "word"
                    rows = rows_of(part, {"de": german, "en": english}, languages)
                    yield Entry(DING, f"{number}.{place}", f"{DING}:{number}", rows)


def freedict(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry a translation, all for training: there are few, and most words are in several,
    so that holding some out would take many more from training.
    """
    for package, first, second in _directions(languages):
        form = rf"usr/share/dictd/{package.removeprefix('dict-')}\.(index|dict\.dz)"
        files = {match[1]: content for match, content in archives.files(package, form)}
        if len(files) != 2:
            continue
        try:
            found = list(dictd(files["index"].decode("utf-8", "replace"), files["dict.dz"]))
        except ValueError as error:
            raise CorpusError(f"{package}: not readable: {error}; download it anew") from error
        for number, (head, sense) in enumerate(found):
            name = f"{first}-{second}.{number}"
            rows = rows_of("word", {first: head, second: sense}, languages)
            yield Entry(FREEDICT, name, f"{FREEDICT}:{name}", rows, "train")


def packages_of(languages: Iterable[str]) -> list[str]:
    """Return the packages of FreeDict for some languages: from and to English."""
    return [package for package, _, _ in _directions(languages)]


def _directions(languages: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    wanted = list(languages)
    if "en" in wanted:
        for lang in wanted:
            if name := _NAMES.get(lang):
                yield f"dict-freedict-eng-{name}", "en", lang
                yield f"dict-freedict-{name}-eng", lang, "en"


def translations(line: str) -> Iterator[tuple[str, str]]:
    """Yield the German and the English side of each translation of a line of Ding."""
    german, _, english = line.partition("::")
    sides = [side.split("|") for side in (german, english)]
    if len(sides[0]) != len(sides[1]):
        return
    for parts in zip(*sides, strict=True):
        synonyms = [[_bare(text) for text in _SEMICOLON.split(part)] for part in parts]
        if len(synonyms[0]) == len(synonyms[1]):
            yield from zip(*synonyms, strict=True)
        else:
            yield synonyms[0][0], synonyms[1][0]


def dictd(index: str, packed: bytes) -> Iterator[tuple[str, str]]:
    """Yield a headword and a translation of it, from the two files of a dictd dictionary.

    Lines with parentheses are left out: they explain a sense. ``packed`` is gzip's format
    (dictzip). Raises ValueError for files that are not what they should be.
    """
    try:
        content = zlib.decompress(packed, wbits=31)
    except zlib.error as error:
        raise ValueError(f"the text: {error}") from error
    places = set()  # several names may have one entry
    for line in filter(None, index.split("\n")):
        name, *place = line.split("\t")
        if not name.startswith(("00database", "00-database")):  # title, licence
            start, size = _place(place)
            if not 0 < size <= len(content) - start:
                raise ValueError(f"{name!r} in the index is not in the text")
            places.add((start, size))
    for start, size in sorted(places):
        head, *senses = content[start : start + size].decode("utf-8", "replace").split("\n")
        name = _bare(head)
        for sense in senses:
            if name and "(" not in sense:
                for text in re.split("[,;]", _bare(_NUMBER.sub("", sense))):
                    if text.strip():
                        yield name, text.strip()


def _place(digits: Sequence[str]) -> tuple[int, int]:
    """Read offset and size: numbers in base 64, the highest digit first."""
    if len(digits) != 2 or not set("".join(digits)) <= _DIGITS.keys():
        raise ValueError(f"{' '.join(digits)!r} in the index is no offset and size")
    offset, size = (
        sum(_DIGITS[digit] << 6 * place for place, digit in enumerate(reversed(number)))
        for number in digits
    )
    return offset, size


def _bare(text: str) -> str:
    return " ".join(_REMARK.sub(" ", text).split())
