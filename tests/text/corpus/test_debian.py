"""apt itself, with a mirror in a folder: no network."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.text.corpus.archives import deb, mo, tar
from text.corpus.archives import Archives
from text.corpus.debian import Wanted, download, locale_of
from text.corpus.errors import CorpusError

MD5 = "0" * 32
needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get here")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with a binary and a source package, which alone apt is configured for."""
    root = tmp_path / "mirror"
    folder = root / "dists" / "test"
    archive = deb({"usr/share/locale/de/LC_MESSAGES/gnucash.mo": mo({"a b c": "d e f"})})
    source = tar({"installation-guide-1/po/de/boot.po": b'msgid "a"\nmsgstr "b"\n'})
    dsc = f"Format: 3.0 (native)\nSource: installation-guide\nVersion: 1\nChecksums-Sha256:\n {sha256(source)} {len(source)} installation-guide_1.tar.xz\n"  # noqa: E501
    for name, content in {
        "gnucash-common_1_all.deb": archive,
        "installation-guide_1.tar.xz": source,
        "installation-guide_1.dsc": dsc.encode(),
    }.items():
        (root / "pool").mkdir(parents=True, exist_ok=True)
        (root / "pool" / name).write_bytes(content)
    lists = {
        "main/binary-all/Packages": "",
        "main/i18n/Translation-de": f"Package: gnucash-common\nDescription-md5: {MD5}\n"
        "Description-de: x\n y\n",
        "main/source/Sources": "Package: installation-guide\nVersion: 1\nDirectory: pool\n"
        "Checksums-Sha256:\n"
        f" {sha256(dsc.encode())} {len(dsc)} installation-guide_1.dsc\n"
        f" {sha256(source)} {len(source)} installation-guide_1.tar.xz\n",
    }
    for machine in ("amd64", "arm64"):
        lists[f"main/binary-{machine}/Packages"] = (
            f"Package: gnucash-common\nVersion: 1\nArchitecture: all\nDescription-md5: {MD5}\n"
            f"Filename: pool/gnucash-common_1_all.deb\nSize: {len(archive)}\n"
            f"SHA256: {sha256(archive)}\n"
        )
    release = "Origin: Debian\nSuite: test\nCodename: test\nArchitectures: amd64 arm64\n"
    release += "Components: main\nSHA256:\n"
    for name, content in lists.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        release += f" {sha256(content.encode())} {len(content.encode())} {name}\n"
    (folder / "Release").write_text(release)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{root} test main\n")
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(config))
    return root


@needs_apt
def test_packages_lists_and_sources_are_downloaded_by_name(mirror: Path, tmp_path: Path) -> None:
    archives = Archives(tmp_path / "archives")
    wanted = Wanted(["gnucash-common", "gnucash-none"], ["installation-guide"], ["de"])
    assert wanted.missing(archives)
    archives.folder.mkdir()
    download(wanted, archives)
    assert wanted.absent(archives) == ["gnucash-none"]
    assert not wanted.missing(archives)
    (found,) = archives.files("gnucash-common", r".*/(\w+)\.mo")
    assert found[0][1] == "gnucash"
    (found,) = archives.files("installation-guide", r".*/(\w+)\.po")
    assert found[0][1] == "boot"
    assert [used.version for used in archives.used] == ["1", "1"]


@needs_apt
def test_an_archive_that_is_not_the_listed_one_is_not_taken(mirror: Path, tmp_path: Path) -> None:
    (mirror / "pool" / "gnucash-common_1_all.deb").write_bytes(b"other")
    (tmp_path / "archives").mkdir()
    with pytest.raises(CorpusError, match="apt-get download"):
        download(Wanted(["gnucash-common"]), Archives(tmp_path / "archives"))


@needs_apt
def test_without_a_mirror_one_line_says_what_to_bring(mirror: Path, tmp_path: Path) -> None:
    shutil.rmtree(mirror)
    (tmp_path / "archives").mkdir()
    with pytest.raises(CorpusError) as error:
        download(Wanted(["gnucash-common"]), Archives(tmp_path / "archives"))
    assert "copy the archives to" in str(error.value)
    assert "--from FOLDER" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_apt_one_line_says_what_to_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match="this machine has no apt-get; without a package mirror"):
        download(Wanted(["gnucash-common"]), Archives(tmp_path))


def test_an_apt_that_does_not_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "apt-get"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=":")
    monkeypatch.setattr("text.corpus.debian._SECONDS", 0.2)
    with pytest.raises(CorpusError, match=r"apt-get \w+: not done after 0\.2 seconds; without"):
        download(Wanted(["gnucash-common"]), Archives(tmp_path))


@pytest.mark.parametrize("ending", ["xz", "gz", "bz2", "lz4"])
def test_a_damaged_list_is_named(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"Packages.{ending}").write_bytes(b"not packed")
    with pytest.raises(CorpusError, match=rf"Packages\.{ending}: not readable: .*; delete it"):
        _ = Archives(tmp_path).checksums


def test_a_language_is_a_locale() -> None:
    assert [locale_of(lang) for lang in ("de", "pt-br", "zh_tw")] == ["de", "pt_BR", "zh_TW"]
