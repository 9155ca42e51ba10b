"""Lists the sources of Debian: their packages by language, their licences, their readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from text.corpus import ding, freedict, guides, help_pages, messages, packages, verses
from text.corpus.archives import Archives
from text.corpus.debian import Wanted
from text.corpus.entry import Entry
from text.corpus.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Source:
    """A source of entries. ``wanted``: what it needs of the distribution for some languages."""

    licence: str
    wanted: Callable[[Sequence[str]], Wanted]
    read: Callable[[Archives, Sequence[str]], Iterator[Entry]]


def _foreign(languages: Iterable[str]) -> list[str]:
    return [lang for lang in languages if lang != "en"]


SOURCES = {
    packages.SOURCE: Source(
        "that of each package", lambda langs: Wanted(translations=langs), packages.read
    ),
    help_pages.SOURCE: Source(
        "MPL-2.0",
        lambda langs: Wanted([help_pages.package_of(lang) for lang in langs]),
        help_pages.read,
    ),
    messages.LIBREOFFICE: Source(
        "MPL-2.0",
        lambda langs: Wanted([f"libreoffice-l10n-{lang}" for lang in _foreign(langs)]),
        messages.libreoffice,
    ),
    messages.GNUCASH: Source("GPL-2+", lambda langs: Wanted(["gnucash-common"]), messages.gnucash),
    guides.GNOME: Source("CC-BY-SA-3.0", lambda langs: Wanted([guides.GNOME]), guides.gnome),
    messages.GUIDE: Source(
        "GPL-2+", lambda langs: Wanted(sources=[messages.GUIDE]), messages.guide
    ),
    ding.SOURCE: Source(
        "GPL-2+",
        lambda langs: Wanted([ding.SOURCE] if {"de", "en"} <= set(langs) else []),
        ding.read,
    ),
    freedict.SOURCE: Source(
        "GPL-2+ and others, that of each package",
        lambda langs: Wanted(freedict.packages_of(langs)),
        freedict.read,
    ),
    verses.SOURCE: Source(
        "public domain",
        lambda langs: Wanted([verses.PACKAGES[lang] for lang in langs if lang in verses.PACKAGES]),
        verses.read,
    ),
    guides.REFERENCE: Source(
        "GPL-2+",
        lambda langs: Wanted([guides.package_of(lang) for lang in langs]),
        guides.reference,
    ),
}


def chosen(names: Sequence[str]) -> dict[str, Source]:
    """Return the sources of these names, all for ``all``. Raises CorpusError."""
    if "all" in names:
        return SOURCES
    for name in names:
        if name not in SOURCES:
            raise CorpusError(f"source {name!r}: none of {', '.join(SOURCES)}, all")
    return {name: SOURCES[name] for name in names}


def wanted(sources: Iterable[Source], languages: Sequence[str]) -> Wanted:
    """Return what sources need together."""
    each = [source.wanted(languages) for source in sources]
    return Wanted(
        [name for want in each for name in want.packages],
        [name for want in each for name in want.sources],
        sorted({lang for want in each for lang in want.translations}),
    )
