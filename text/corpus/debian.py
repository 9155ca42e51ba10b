"""Downloads Debian packages by name with apt, as any user: lists and archives in one folder.

apt checks what it downloads against the distribution's signature. The machine's own lists, and
what is installed, stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from text.corpus.archives import Archives
from text.corpus.errors import CorpusError
from training.progress import OnProgress, no_progress

LISTS = "lists"
_SECONDS = 900  # for one command of apt


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a corpus needs of the distribution, by name."""

    packages: Sequence[str] = ()
    sources: Sequence[str] = ()  # source packages
    translations: Sequence[str] = ()  # languages of package descriptions; with apt's Packages

    def missing(self, archives: Archives) -> bool:
        """Tell whether the folder lacks any of it that the distribution, by its lists, has."""
        names = set(self.packages) - set(self.absent(archives)) | set(self.sources)
        lists = ("Packages", *map(_list, self.translations)) if self.translations else ()
        return not all(map(archives.find, names)) or not all(map(archives.lists, lists))

    def absent(self, archives: Archives) -> list[str]:
        """Return the packages that the distribution does not have, by the lists in the folder."""
        known = archives.checksums
        return [n for n in self.packages if known and n not in known and not archives.find(n)]


def _list(lang: str) -> str:
    return f"Translation-{locale_of(lang)}"


def locale_of(lang: str) -> str:
    """Return a language as apt calls it: ``pt-br`` → ``pt_BR``."""
    name, _, country = lang.replace("_", "-").partition("-")
    return f"{name}_{country.upper()}" if country else name


def download(wanted: Wanted, archives: Archives, on_progress: OnProgress = no_progress) -> None:
    """Bring what is wanted, and what the distribution has of it, into the folder."""
    apt = _Apt(archives.folder, wanted.translations)
    on_progress("lists of packages", 0, 1)
    apt.update()
    archives.__dict__.pop("checksums", None)  # of the lists before
    on_progress("lists of packages", 1, 1)
    absent = wanted.absent(archives)
    names = [name for name in wanted.packages if name not in absent]
    total = len(names) + len(wanted.sources)
    for number, name in enumerate((*names, *wanted.sources)):
        on_progress("packages", number, total)
        if number < len(names):
            apt.run("apt-get", "download", name)
        else:
            apt.source(name)
    on_progress("packages", total, total)


class _Apt:
    """apt with folders of its own below ``folder``."""

    def __init__(self, folder: Path, languages: Iterable[str]) -> None:
        if shutil.which("apt-get") is None:
            raise CorpusError(_without("this machine has no apt-get", folder))
        self._folder = folder.absolute()
        state = self._folder / "apt"
        for path in (self._folder / LISTS / "partial", state / "cache" / "archives" / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        (state / "status").touch()  # nothing is installed, so no dependency is looked at
        self._options = [
            f"Dir::State={state}",
            f"Dir::State::Lists={self._folder / LISTS}",
            f"Dir::State::status={state / 'status'}",
            f"Dir::Cache={state / 'cache'}",
            "APT::Sandbox::User=",  # root would become _apt, which may not write here
            "APT::Get::List-Cleanup=false",
            "Acquire::GzipIndexes=false",
            "Acquire::Retries=3",
            "Acquire::Languages=" + ",".join(map(locale_of, languages)),
        ]

    def run(self, program: str, *arguments: str, options: Sequence[str] = ()) -> str:
        given = [word for option in (*self._options, *options) for word in ("-o", option)]
        try:
            done = subprocess.run(  # noqa: S603 — a fixed program, names of packages as arguments
                [program, *given, *arguments],
                cwd=self._folder,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                env=os.environ | {"LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired as error:
            why = f"{program} {arguments[0]}: not done after {_SECONDS:,} seconds"
            raise CorpusError(_without(why, self._folder)) from error
        if done.returncode:
            said = re.findall(r"^[EW]: (.*)$", done.stderr, re.MULTILINE) or [done.stderr.strip()]
            raise CorpusError(_without(f"{program} {arguments[0]}: {said[0]}", self._folder))
        return done.stdout

    def update(self) -> None:
        failure = None
        try:
            self.run("apt-get", "update")
        except CorpusError as error:  # of one of several mirrors, perhaps
            failure = error
        if not self._mirrors() or not any((self._folder / LISTS).glob("*_Packages")):
            raise failure or CorpusError(_without("apt has no mirror of Debian", self._folder))

    def _mirrors(self) -> list[str]:
        """Return ``[signed-by=…] URI SUITE COMPONENT`` of each Debian mirror that apt uses."""
        form = "$(ORIGIN)|$(SIGNED_BY)|$(REPO_URI) $(RELEASE) $(COMPONENT)"
        targets = self.run("apt-get", "indextargets", "--format", form, "Created-By: Packages")
        lines = []
        for line in targets.splitlines():
            origin, key, place = line.split("|", 2)
            if origin == "Debian":
                lines.append(f"[signed-by={key}] {place}" if key.startswith("/") else place)
        return sorted(set(lines))

    def source(self, name: str) -> None:
        """Download a source package from the mirrors that binary packages come from."""
        file = self._folder / "apt" / "sources.list"
        file.write_text("".join(f"deb-src {line}\n" for line in self._mirrors()))
        options = (f"Dir::Etc::sourcelist={file}", "Dir::Etc::sourceparts=/dev/null")
        self.run("apt-get", "update", options=options)
        self.run("apt-get", "source", "--download-only", name, options=options)


def _without(reason: str, folder: Path) -> str:
    return (
        f"{reason}; without a package mirror, copy the archives to {folder} (docs/text.md has "
        "their names) or give files of your own: --from FOLDER"
    )
