"""Reads languages and split from the name of a file or folder: ``sts.en-de.test``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from text.corpus.entry import Split

SPLITS: dict[str, Split] = {
    "train": "train", "dev": "valid", "valid": "valid", "validation": "valid", "test": "test"
}  # fmt: skip
_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy
da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu
hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb
lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om
or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw
ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
CODES = frozenset(_CODES.split())  # of ISO 639-1
_WORDS = frozenset(("an", "as", "be", "is", "my", "no", "or", "so", "to"))  # English, unless last


class Name(NamedTuple):
    """What a name says: at most two languages, the split, and the name without them."""

    languages: list[str]
    split: Split | None
    rest: str


def read(name: str, languages: Sequence[str]) -> Name:
    """Read a name; ``languages`` are those of the corpus.

    A part is a language if it is one of ``languages``, or if it is a code at an end of the name.
    """
    parts = _parts(name, languages)
    split = next((SPLITS[part] for part in parts if part in SPLITS), None)
    parts = [part for part in parts if part not in SPLITS]
    known = [part in languages or (part in CODES and part not in _WORDS) for part in parts]
    if parts and parts[-1] in CODES:
        known[-1] = True
    first = next((at for at, code in enumerate(known) if not code), len(parts))
    last = next((at for at in range(len(parts), first, -1) if not known[at - 1]), first)
    is_language = [part in languages or at < first or at >= last for at, part in enumerate(parts)]
    found = [part for part, own in zip(parts, is_language, strict=True) if own]
    rest = [part for part, own in zip(parts, is_language, strict=True) if not own]
    return Name(found[:2], split, "-".join(rest) or name)


def _parts(name: str, languages: Sequence[str]) -> list[str]:
    """Divide a name at dots, dashes, underscores and spaces, but not within ``pt-br``."""
    whole = sorted(map(re.escape, languages), key=len, reverse=True)
    parts = "|".join([*whole, r"[^._\- ]+"])
    return re.findall(rf"(?<![^._\- ])(?:{parts})(?![^._\- ])", name)
