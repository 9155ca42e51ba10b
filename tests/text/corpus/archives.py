"""Makes Debian archives of few, invented texts: what each source of a corpus reads."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

GERMAN = dict(
    word.split("=")
    for line in (
        "river=Fluss lamp=Lampe garden=Garten clock=Uhr letter=Brief bridge=Brücke",
        "window=Fenster engine=Motor forest=Wald planet=Planet violin=Geige market=Markt",
        "paints=malt moves=bewegt counts=zählt finds=findet keeps=behält sends=sendet",
        "opens=öffnet carries=trägt follows=befolgt measures=misst harbour=Hafen attic=Dachboden",
        "valley=Tal station=Bahnhof kitchen=Küche library=Bücherei desert=Wüste island=Insel",
        "tower=Turm museum=Museum",
    )
    for word in line.split()
)
NOUNS, VERBS, PLACES = list(GERMAN)[:12], list(GERMAN)[12:22], list(GERMAN)[22:]
TAGS = [f"use::{verb}" for verb in VERBS] + [f"field::{noun}" for noun in NOUNS]


def sentence(n: int, lang: str = "en") -> str:
    """The n-th of 12,000 sentences, no two of them alike or near."""
    noun, verb = NOUNS[n % 12], VERBS[n // 12 % 10]
    place, other = PLACES[n // 120 % 10], NOUNS[(n + 1 + n // 1200 % 10) % 12]
    colour = "".join(chr(ord("a") + int(digit)) for digit in str(n * 7919 % 100_003))
    if lang == "en":
        return f"The {colour} {noun} {verb} one {other} near that {place}."
    words = {word: GERMAN[word] for word in (noun, verb, place, other)}
    return f"Das {colour} {words[noun]} {words[verb]} ein {words[other]} bei dem {words[place]}."


def tar(files: Mapping[str, bytes], mode: str = "w:xz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def deb(files: Mapping[str, bytes]) -> bytes:
    """A Debian package: an ar archive of debian-binary, control.tar.xz and data.tar.xz."""
    out = b"!<arch>\n"
    control = tar({"control": b"Package: x\n"})
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", control),
        ("data.tar.xz", tar(files)),
    ):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        out += header.encode() + content + b"\n" * (len(content) % 2)
    return out


def mo(messages: Mapping[str, str]) -> bytes:
    keys = [key.encode() for key in messages]
    texts = [text.encode() for text in messages.values()]
    start = 28 + 16 * len(keys)
    tables, data = [], b""
    for strings in (keys, texts):
        for string in strings:
            tables.append(struct.pack("<2I", len(string), start + len(data)))
            data += string + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, 0)
    return head + b"".join(tables) + data


def dictd(entries: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """A dictionary of dictd: ``index`` and ``dict.dz``; a name without a text has that of the name
    before it.
    """
    lines, content, size = [], b"\n", 0
    for name, text in entries:
        size = len(text.encode()) or size
        content += text.encode()
        lines.append(f"{name}\t{_digits(len(content) - size)}\t{_digits(size)}\n")
    return {"index": "".join(sorted(lines)).encode(), "dict.dz": gzip.compress(content, mtime=0)}


def _digits(number: int) -> str:
    text = base64.b64encode((number << 6).to_bytes(6, "big"))[:7].decode()  # 7 digits of 8
    return text.lstrip("A") or "A"


def sword(slots: list[str]) -> dict[str, bytes]:
    """A testament of one block: ``.bzs``, ``.bzv`` and ``.bzz``."""
    raw = [slot.encode() for slot in slots]
    packed, verses, start = zlib.compress(b"".join(raw)), b"", 0
    for slot in raw:
        verses += struct.pack("<IIH", 0, start, len(slot))
        start += len(slot)
    block = struct.pack("<III", 0, len(packed), start)
    return {"nt.bzs": block, "nt.bzv": verses, "nt.bzz": packed}


def help_page(lang: str, title: str, paragraphs: Mapping[str, str], keywords: list[str]) -> bytes:
    metas = "".join(f'<meta itemprop="keywords" content="{k}">' for k in keywords)
    body = "".join(
        f'<p id="{key}" class="paragraph">{text}</p>\n' for key, text in paragraphs.items()
    )
    page = (
        f'<html lang="{lang}"><head><title>{title}</title>{metas}</head><body>{body}</body></html>'
    )
    return page.encode()


def packages(count: int) -> tuple[str, dict[str, str]]:
    """apt's list of ``count`` packages, and their descriptions in English and German."""
    stanzas, translations = [], {"en": "", "de": ""}
    for n in range(count):
        md5 = hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest()
        tags = ", ".join(sorted({TAGS[(n * k) % len(TAGS)] for k in (1, 3, 5, 7)}))
        stanzas.append(
            f"Package: pkg{n}\nSource: family{n // 2}\nVersion: 1\nDescription-md5: {md5}\n"
            f"Tag: {tags}\nSection: {('games', 'text', 'net')[n % 3]}\n"
            f"Filename: pool/pkg{n}_1_all.deb\nSHA256: {'0' * 64}\n"
        )
        for lang, found in translations.items():
            lines = "\n".join(f" {sentence(20_000 + 9 * n + k, lang)}" for k in range(3))
            if n < 20:  # a name that more descriptions have gives nothing away
                lines += f" Pkg{n}"
            translations[lang] = (
                f"{found}Package: pkg{n}\nDescription-md5: {md5}\n"
                f"Description-{lang}: {sentence(60_000 + n, lang)} pkg{n}\n{lines}\n\n"
            )
    return "\n".join(stanzas), translations


def write_archives(folder: Path, pages: int = 60, count: int = 160) -> None:
    """Fill a folder with archives of four sources: packages, help, messages and verses."""
    folder.mkdir(parents=True, exist_ok=True)
    listed, translations = packages(count)
    for lang, name in (("en", "en-us"), ("de", "de")):
        files = {}
        for n in range(pages):
            texts = {f"par_id{n}x{k}": sentence(8 * n + k, lang) for k in range(6)}
            texts["par_idshared"] = {"en": "This text is the same on every page.",
                                     "de": "Dieser Text steht auf jeder Seite."}[lang]  # fmt: skip
            texts["par_idcode"] = "print_all_values(first, second, third)"
            texts["par_idname"] = "user_tel_home"
            keywords = [f"{sentence(8 * n, lang).split()[1]},use of", f"topic {lang} {n * 7919}"]
            path = f"usr/share/libreoffice/help/{name}/text/scalc/page{n}.html"
            files[path] = help_page(lang, sentence(8 * n, lang), texts, keywords)
        archive = deb(files)
        digest = hashlib.sha256(archive).hexdigest()
        (folder / f"libreoffice-help-{name}_1_all.deb").write_bytes(archive)
        listed += f"\nPackage: libreoffice-help-{name}\nVersion: 1\nSHA256: {digest}\n"
    messages = {f"ctx\x04~{sentence(10_000 + n)}": sentence(10_000 + n, "de") for n in range(100)}
    catalogue = {"usr/lib/libreoffice/program/resource/de/LC_MESSAGES/sc.mo": mo(messages)}
    (folder / "libreoffice-l10n-de_1_all.deb").write_bytes(deb(catalogue))
    (folder / "Packages").write_text(listed)
    (folder / "Translation-en").write_text(translations["en"])
    (folder / "Translation-de.gz").write_bytes(gzip.compress(translations["de"].encode()))
