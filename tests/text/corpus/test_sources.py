from __future__ import annotations

from pathlib import Path

import pytest

from tests.text.corpus.archives import deb, dictd, mo, sword, tar
from text.corpus import dictionaries, guides, messages, packages, verses
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
    assert list(dictionaries.translations(line)) == [
        ("Aal (a; b)", "eel (c)"),
        ("Fisch", "fish"),
        ("blauer Aal", "blue eel"),
    ]
    assert not list(dictionaries.translations("a | b :: c"))


def test_short_translations_of_the_dictionary_are_words(tmp_path: Path) -> None:
    lines = "# Ding\nAal {m}; Fisch :: eel; fish\ndas ist ein Aal :: this is an eel\n"
    files = {"usr/share/trans/de-en": lines.encode()}
    (tmp_path / "trans-de-en_1_all.deb").write_bytes(deb(files))
    found = [
        (entry.rows[0].part, texts(entry))
        for entry in dictionaries.ding(Archives(tmp_path), ["en", "de"])
    ]
    assert found == [
        ("word", {"en": "eel", "de": "Aal"}),
        ("word", {"en": "fish", "de": "Fisch"}),
        ("text", {"en": "this is an eel", "de": "das ist ein Aal"}),
    ]


def test_a_headword_of_freedict_has_each_translation_of_each_sense(tmp_path: Path) -> None:
    entries = [
        ("00databaseinfo", "Made by hand\nfree"),
        ("dog", "dog /dɔg/ <n>\nperro"),
        ("account", "account /əkaunt/ <s> <vt>\n1. conta [eco, fin], fatura\n2. ter em conta"),
        ("Account", ""),  # a second name of the entry before
        ("odd", "odd\n(of numbers) impar, strange"),
    ]
    english = {f"usr/share/dictd/freedict-eng-spa.{end}": c for end, c in dictd(entries).items()}
    (tmp_path / "dict-freedict-eng-spa_1_all.deb").write_bytes(deb(english))
    other = dictd([("perro", "perro\nDog, hound; cur")])
    spanish = {f"usr/share/dictd/freedict-spa-eng.{end}": c for end, c in other.items()}
    (tmp_path / "dict-freedict-spa-eng_1_all.deb").write_bytes(deb(spanish))
    found = list(dictionaries.freedict(Archives(tmp_path), ["es", "en", "de"]))
    assert [texts(entry) for entry in found] == [
        {"en": "dog", "es": "perro"},
        {"en": "account", "es": "conta"},
        {"en": "account", "es": "fatura"},
        {"en": "account", "es": "ter em conta"},
        {"en": "Dog", "es": "perro"},
        {"en": "hound", "es": "perro"},
        {"en": "cur", "es": "perro"},
    ]
    assert {(entry.rows[0].part, entry.split) for entry in found} == {("word", "train")}
    assert len({entry.id for entry in found}) == len(found)
    assert not list(dictionaries.freedict(Archives(tmp_path), ["es", "de"]))


@pytest.mark.parametrize(
    ("index", "packed", "why"),
    [
        ("dog\tA", DOG, "'A' in the index is no offset and size"),
        ("dog\tA\tä", DOG, "'A ä' in the index is no offset and size"),
        ("dog\tA\tA", DOG, "'dog' in the index is not in the text"),
        ("dog\tBAAA\tB", DOG, "'dog' in the index is not in the text"),
        ("dog\tA\tB", b"dog\nperro", "the text: Error -3"),
        ("dog\tA\tB", DOG[:-9], "the text: Error -5"),
    ],
)
def test_a_damaged_dictionary_is_named(index: str, packed: bytes, why: str, tmp_path: Path) -> None:
    folder = "usr/share/dictd/freedict-eng-spa"
    content = {f"{folder}.index": index.encode(), f"{folder}.dict.dz": packed}
    (tmp_path / "dict-freedict-eng-spa_1_all.deb").write_bytes(deb(content))
    with pytest.raises(CorpusError, match=f"dict-freedict-eng-spa: not readable: {why}"):
        list(dictionaries.freedict(Archives(tmp_path), ["en", "es"]))


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
