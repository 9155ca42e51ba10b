from __future__ import annotations

from pathlib import Path

import pytest

from tests.text.corpus.archives import deb, dictd, mo, sword, tar
from text.corpus import ding, freedict, guides, messages, packages, verses
from text.corpus.archives import Archives
from text.corpus.entry import Entry
from text.corpus.errors import CorpusError
from text.corpus.tasks import masked

DOG = dictd([("dog", "dog\nperro")])["dict.dz"]


def texts(entry: Entry) -> dict[str, str]:
    return {row.lang: row.text for row in entry.rows}


def test_messages_lose_contexts_plurals_markup_and_accelerators(tmp_path: Path) -> None:
    catalogue = {
        "": "Content-Type: text/plain",
        "menu\x04_Save the ~file": "Datei _speichern",
        "%d file\0%d files": "%d Datei\0%d Dateien",
        "<b>Not &amp; now</b>": "<b>Nicht &amp; jetzt</b>",
    }
    files = {"usr/share/locale/de/LC_MESSAGES/gnucash.mo": mo(catalogue)}
    (tmp_path / "gnucash-common_1_all.deb").write_bytes(deb(files))
    found = [texts(e) for e in messages.gnucash(Archives(tmp_path), ["en", "de"])]
    assert found == [
        {"en": "Save the file", "de": "Datei speichern"},
        {"en": "%d file", "de": "%d Datei"},
        {"en": "Not & now", "de": "Nicht & jetzt"},
    ]


def test_fuzzy_and_obsolete_messages_are_left_out() -> None:
    content = """
msgid ""
msgstr "Project-Id-Version: x"

#. Tag: para
msgid "A long "
"text with a \\"word\\""
msgstr "Ein langer "
"Text mit einem \\"Wort\\""

#, fuzzy, no-c-format
msgid "almost"
msgstr "beinahe"

#~ msgid "gone"
#~ msgstr "fort"

msgid "untranslated"
msgstr ""
"""
    assert list(messages.po(content)) == [
        ('A long text with a "word"', 'Ein langer Text mit einem "Wort"')
    ]


def test_the_installation_guide_has_paragraphs_and_chapters(tmp_path: Path) -> None:
    po = 'msgid "<para>Boot the &arch;</para>"\nmsgstr "<para>Starten Sie &arch;</para>"\n'
    archive = tar({"guide-1/po/de/boot.po": po.encode(), "guide-1/po/fr/boot.po": po.encode()})
    (tmp_path / "installation-guide_1.tar.xz").write_bytes(archive)
    paragraph, chapter = messages.guide(Archives(tmp_path), ["en", "de"])
    assert texts(paragraph) == {"en": "Boot the arch", "de": "Starten Sie arch"}
    assert [row.part for row in chapter.rows] == ["page", "page"]
    assert paragraph.group == chapter.group


def test_verses_are_numbered_within_their_chapter(tmp_path: Path) -> None:
    """The first book has a verse more in one language: the next chapter is aligned all the same."""
    english = [
        "",
        '<div type="book" osisID="Rev"/>',
        '<chapter osisID="Rev.12" sID="x"/>',
        "<w>He stood</w> on the <w>sand</w><note>or: he</note>, there.",
        "<w>Then</w> I saw.",
        '<chapter osisID="Rev.13" sID="y"/>',
        "<w>A beast</w>",
    ]
    spanish = [english[0], english[1], english[2], "Estaba en la arena.", english[5], "Una bestia"]
    for name, slots in (("sword-text-web", english), ("sword-text-sparv", spanish)):
        folder = "usr/share/sword/modules/texts/ztext/x"
        files = {f"{folder}/{part}": content for part, content in sword(slots).items()}
        (tmp_path / f"{name}_1_all.deb").write_bytes(deb(files))
    found = {e.id: texts(e) for e in verses.read(Archives(tmp_path), ["en", "es"])}
    assert found == {
        "Rev.12.1": {"en": "He stood on the sand, there.", "es": "Estaba en la arena."},
        "Rev.12.2": {"en": "Then I saw."},
        "Rev.13.1": {"en": "A beast", "es": "Una bestia"},
    }


def test_parts_of_a_line_of_the_dictionary_are_translations_one_by_one() -> None:
    line = "Aal {m} (a; b) [cook.]; Fisch | blauer Aal :: eel (c); fish | blue eel; eel"
    assert list(ding.translations(line)) == [
        ("Aal (a; b)", "eel (c)"),
        ("Fisch", "fish"),
        ("blauer Aal", "blue eel"),
    ]
    assert not list(ding.translations("a | b :: c"))


def test_short_translations_of_the_dictionary_are_words(tmp_path: Path) -> None:
    lines = "# Ding\nAal {m}; Fisch :: eel; fish\ndas ist ein Aal :: this is an eel\n"
    files = {"usr/share/trans/de-en": lines.encode()}
    (tmp_path / "trans-de-en_1_all.deb").write_bytes(deb(files))
    found = [
        (entry.rows[0].part, texts(entry)) for entry in ding.read(Archives(tmp_path), ["en", "de"])
    ]
    assert found == [
        ("word", {"en": "eel", "de": "Aal"}),
        ("word", {"en": "fish", "de": "Fisch"}),
        ("text", {"en": "this is an eel", "de": "das ist ein Aal"}),
    ]


def write_freedict(folder: Path, direction: str, entries: list[tuple[str, str]]) -> None:
    place = f"usr/share/dictd/freedict-{direction}"
    files = {f"{place}.{ending}": content for ending, content in dictd(entries).items()}
    (folder / f"dict-freedict-{direction}_1_all.deb").write_bytes(deb(files))


def test_an_entry_of_freedict_has_each_translation_of_each_sense(tmp_path: Path) -> None:
    entries = [
        ("00databaseinfo", "Made by hand\nfree"),
        ("dog", "dog /dɔg/ <n>\ncão"),
        ("account", "account /əkaunt/ <s> <vt>\n1. conta [eco, fin], fatura\n2. \n3. ter em conta"),
        ("Account", ""),  # a second name of the entry before
        ("odd", 'odd\n(of numbers) ímpar, strange\n  Note: "número"\n%h‐ável, 1,5 por‐cento'),
    ]
    write_freedict(tmp_path, "eng-por", entries)
    write_freedict(tmp_path, "por-eng", [("cão", "cão\nDog, hound; cur")])
    found = list(freedict.read(Archives(tmp_path), ["pt-br", "en", "de"]))
    assert [texts(entry) for entry in found] == [
        {"en": "dog", "pt-br": "cão"},
        {"en": "account", "pt-br": "conta"},
        {"en": "account", "pt-br": "fatura"},
        {"en": "account", "pt-br": "ter em conta"},
        {"en": "odd", "pt-br": "1,5 por-cento"},
        {"en": "Dog", "pt-br": "cão"},
        {"en": "hound", "pt-br": "cão"},
        {"en": "cur", "pt-br": "cão"},
    ]
    assert {(entry.rows[0].part, entry.split) for entry in found} == {("word", "train")}
    assert len({entry.id for entry in found}) == len(found)
    assert not list(freedict.read(Archives(tmp_path), ["pt", "de"]))


def test_phrases_of_freedict_that_lost_words_or_spaces_are_left_out_or_mended(
    tmp_path: Path,
) -> None:
    """In some dictionaries a phrase's headword is its first word; in others words run together."""
    cut = [("hold", "hold\nresponsabilizar"), ("hold", "hold\ntener"), ("dog", "dog\nperro")]
    write_freedict(tmp_path, "eng-spa", [*cut, ("bus stop", "bus stop\nparadadebus")])
    write_freedict(
        tmp_path, "spa-eng", [("parada de bus", "parada de bus\nbusstop"), ("no", "no\nofno")]
    )
    found = [texts(e) for e in freedict.read(Archives(tmp_path), ["en", "es"])]
    assert found == [
        {"en": "dog", "es": "perro"},
        {"en": "bus stop", "es": "parada de bus"},
        {"en": "busstop", "es": "parada de bus"},  # of 7 letters: it may be a word
        {"en": "ofno", "es": "no"},
    ]
    write_freedict(tmp_path, "eng-fra", [("hold", "hold\ntenir"), ("hold", "hold\ncale")])
    kept = [texts(e)["fr"] for e in freedict.read(Archives(tmp_path), ["en", "fr"])]
    assert kept == ["tenir", "cale"]


@pytest.mark.parametrize(
    ("index", "packed", "why"),
    [
        pytest.param("dog\tA", DOG, "'A' in the index is no offset and size", id="no-size"),
        pytest.param("dog\tA\tä", DOG, "'A ä' in the index is no offset and size", id="no-digit"),
        pytest.param("dog\tA\tA", DOG, "'dog' in the index is not in the text", id="empty"),
        pytest.param("dog\tBAAA\tB", DOG, "'dog' in the index is not in the text", id="beyond"),
        pytest.param("dog\tA\tB", b"dog\nperro", "the text: Error -3", id="not-packed"),
        pytest.param("dog\tA\tB", DOG[:-9], "the text: Error -5", id="cut"),
        pytest.param("", None, "no freedict-eng-spa.index and .dict.dz in it", id="one-file"),
    ],
)
def test_a_damaged_dictionary_is_named(
    index: str, packed: bytes | None, why: str, tmp_path: Path
) -> None:
    folder = "usr/share/dictd/freedict-eng-spa"
    content = {f"{folder}.index": index.encode()}
    if packed is not None:
        content[f"{folder}.dict.dz"] = packed
    (tmp_path / "dict-freedict-eng-spa_1_all.deb").write_bytes(deb(content))
    message = rf"dict-freedict-eng-spa_1_all\.deb: not readable: {why}.*; delete it"
    with pytest.raises(CorpusError, match=message):
        list(freedict.read(Archives(tmp_path), ["en", "es"]))


def test_a_guide_with_other_elements_is_not_aligned(tmp_path: Path) -> None:
    form = '<page xmlns="http://projectmallard.org/1.0/"><title>{}</title><p>{}</p>{}</page>'
    files = {
        f"usr/share/help/{folder}/help/a.page": form.format(*content).encode()
        for folder, content in {
            "C": ("The mouse", "It <b>wakes</b> up.", ""),
            "de": ("Die Maus", "Sie wacht auf.", ""),
            "es": ("El ratón", "Se despierta.", "<p>Más.</p>"),
        }.items()
    }
    (tmp_path / "gnome-user-docs_1_all.deb").write_bytes(deb(files))
    entries = list(guides.gnome(Archives(tmp_path), ["en", "de", "es"]))
    found = [texts(entry) for entry in entries if entry.rows[0].part == "text"]
    assert found[:2] == [
        {"en": "The mouse", "de": "Die Maus"},
        {"en": "It wakes up.", "de": "Sie wacht auf."},
    ]
    assert found[2:] == [{"es": "El ratón"}, {"es": "Se despierta."}, {"es": "Más."}]
    assert {entry.group for entry in entries} == {"gnome-user-docs:help/a"}


def test_a_description_is_that_of_the_same_md5(tmp_path: Path) -> None:
    (tmp_path / "mirror_Packages").write_text(
        "Package: libfoo1\nSource: foo (1.0)\nSection: contrib/libs\nDescription-md5: aa\n"
        "Tag: role::shared-lib, use::viewing,\n works-with::image\n"
    )
    (tmp_path / "mirror_Translation-en").write_text(
        "Package: libfoo1\nDescription-md5: aa\nDescription-en: viewer of images\n"
        " First\n paragraph.\n .\n Second one.\n"
    )
    (tmp_path / "mirror_Translation-pt_BR").write_text(
        "Package: libfoo1\nDescription-md5: bb\nDescription-pt_BR: outro\n Antigo.\n"
    )
    (entry,) = packages.read(Archives(tmp_path), ["en", "pt-br"])
    assert entry.group == "packages:foo"
    assert entry.rows == [
        ("title", "en", "viewer of images"),
        ("body", "en", "First paragraph.\nSecond one."),
    ]
    assert entry.meta["labels"] == {"section": "libs"}
    assert entry.meta["tags"] == ["role::shared-lib", "use::viewing", "works-with::image"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GnuCash interface for Python", "… interface for Python"),
        ("libgnucash, not GnuCashier", "…, not GnuCashier"),
    ],
)
def test_names_are_masked_as_whole_words(text: str, found: str) -> None:
    assert masked(text, packages.names_of("libgnucash", "gnucash")) == found
