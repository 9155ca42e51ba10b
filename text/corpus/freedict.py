"""Reads the dictionaries of FreeDict (English and one other language), in dictd's format.

A dictionary is an index, ``headword``, offset and size a line, and a packed text: ``headword
/pronunciation/ <class>``, then lines of senses.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from text.corpus.archives import Archives
from text.corpus.ding import without_remarks
from text.corpus.entry import Entry, rows_of
from text.corpus.errors import CorpusError

SOURCE = "freedict"

# FreeDict's names of languages. Its German is Ding, its Polish has definitions among translations.
_NAMES = {"cs": "ces", "es": "spa", "fr": "fra", "it": "ita", "nl": "nld", "pt": "por", "sv": "swe"}
_CUT = {"eng-spa", "eng-ita", "ita-eng", "eng-swe"}  # have phrases by their first word alone
_LEAST_JOINED = 8  # letters of a phrase without its spaces; shorter ones may be words
_PLAIN = str.maketrans({"ĳ": "ij", "Ĳ": "IJ", "\N{HYPHEN}": "-"})
_NUMBER = re.compile(r"^\s*\d+\.(\s+|$)")  # of a sense
_NOTE = "  "  # a note or an example begins so
_DIGITS = {
    digit: value
    for value, digit in enumerate(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    )
}


def read(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry a translation, all for training: most words are in several, so that holding
    some out would take many more from training.
    """
    for lang, name in _named(languages):
        pairs = _translations(archives, f"eng-{name}") + [
            (english, other) for other, english in _translations(archives, f"{name}-eng")
        ]
        spaced = [_spaced_by_joined(side) for side in zip(*pairs, strict=True)]
        for number, pair in enumerate(pairs):
            english, other = (
                known.get(text, text) for known, text in zip(spaced, pair, strict=True)
            )
            entry = f"en-{lang}.{number}"
            rows = rows_of("word", {"en": english, lang: other}, languages)
            yield Entry(SOURCE, entry, f"{SOURCE}:{entry}", rows, "train")


def packages_of(languages: Iterable[str]) -> list[str]:
    """Return the packages of FreeDict for some languages: from and to English."""
    return [
        f"dict-freedict-{pair}"
        for _, name in _named(languages)
        for pair in (f"eng-{name}", f"{name}-eng")
    ]


def _named(languages: Iterable[str]) -> list[tuple[str, str]]:
    """Return the languages that FreeDict has beside English, ``pt-br`` as ``pt``, and its names."""
    wanted = list(languages)
    found = ((lang, _NAMES.get(re.split("[-_]", lang)[0])) for lang in wanted)
    return [(lang, name) for lang, name in found if name and "en" in wanted]


def _translations(archives: Archives, direction: str) -> list[tuple[str, str]]:
    """Return headwords and translations; none if the package is not in the folder. CorpusError."""
    package = f"dict-freedict-{direction}"
    path = archives.find(package)
    if path is None:
        return []
    form = rf"usr/share/dictd/freedict-{direction}\.(index|dict\.dz)"
    files = {match[1]: content for match, content in archives.files(package, form)}
    try:
        if len(files) < 2:
            raise ValueError(f"no freedict-{direction}.index and .dict.dz in it")
        entries = list(dictd(files["index"].decode("utf-8", "replace"), files["dict.dz"]))
    except ValueError as error:
        raise CorpusError(f"{path}: not readable: {error}; delete it") from error
    entries_of = Counter(head for head, _ in entries)
    return [
        (head, text)
        for head, texts in entries
        for text in texts
        if direction not in _CUT or entries_of[head] == 1
    ]


def _spaced_by_joined(texts: Iterable[str]) -> dict[str, str]:
    """Map each phrase without its spaces, as some entries have it, to the phrase."""
    phrases = ((text.replace(" ", ""), text) for text in texts if " " in text)
    return {joined: text for joined, text in phrases if len(joined) >= _LEAST_JOINED}


def dictd(index: str, packed: bytes) -> Iterator[tuple[str, list[str]]]:
    """Yield the headword and the translations of each entry of a dictd dictionary.

    Lines with parentheses, which explain a sense, are left out, and notes. ``packed`` is gzip's
    format (dictzip). Raises ValueError for files that are not what they should be.
    """
    try:
        content = zlib.decompress(packed, wbits=31)
    except zlib.error as error:
        raise ValueError(f"the text: {error}") from error
    places = set()  # several names may have one entry
    for line in filter(None, index.split("\n")):
        name, *place = line.split("\t")
        if not name.startswith(("00database", "00-database")):  # title, licence
            start, size = _place(place[:2])
            if not 0 < size <= len(content) - start:
                raise ValueError(f"{name!r} in the index is not in the text")
            places.add((start, size))
    for start, size in sorted(places):
        text = content[start : start + size].decode("utf-8", "replace").translate(_PLAIN)
        head, *senses = text.split("\n")
        if name := without_remarks(head):
            yield name, [each for sense in senses for each in _synonyms(sense)]


def _synonyms(sense: str) -> Iterator[str]:
    if "(" not in sense and not sense.startswith(_NOTE):
        for text in re.split(r",(?!\d)|;", without_remarks(_NUMBER.sub("", sense))):
            if text.strip() and "%" not in text:
                yield text.strip()


def _place(digits: Sequence[str]) -> tuple[int, int]:
    """Read offset and size: numbers in base 64, the highest digit first."""
    if len(digits) != 2 or not set("".join(digits)) <= _DIGITS.keys():
        raise ValueError(f"{' '.join(digits)!r} in the index is no offset and size")
    offset, size = (
        sum(_DIGITS[digit] << 6 * place for place, digit in enumerate(reversed(number)))
        for number in digits
    )
    return offset, size
