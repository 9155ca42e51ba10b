"""Reads downloaded archives without root or dpkg: Debian packages, source archives, apt's lists."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from feature_store.wording import worded
from text.corpus.errors import CorpusError

_AR_HEADER = 60
_DAMAGED = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Used:
    """An archive that a corpus was built from."""

    package: str
    version: str
    sha256: str


@dataclass
class Archives:
    """A folder of archives and of apt's lists, as ``debian.download`` fills it, or as copied by
    hand. Records in ``used`` what is read.
    """

    folder: Path
    used: list[Used] = field(default_factory=list)

    def lists(self, ending: str) -> list[Path]:
        """Find apt's lists by the ends of their names (``Translation-de``), packed or not."""
        form = re.compile(rf"(.*_)?{re.escape(ending)}(\.(xz|gz|bz2|lz4))?")
        return sorted(p for p in self.folder.rglob(f"*{ending}*") if form.fullmatch(p.name))

    @cached_property
    def checksums(self) -> dict[str, set[str]]:
        """Read the SHA-256 of each package's archives from apt's lists."""
        found: dict[str, set[str]] = {}
        for path in self.lists("Packages"):
            for name, digest in re.findall(
                r"^Package: (\S+)$|^SHA256: (\S+)$", read_list(path), re.MULTILINE
            ):
                if name:
                    digests = found.setdefault(name, set())
                else:
                    digests.add(digest)
        return found

    def find(self, package: str) -> Path | None:
        """Return the newest archive of a package, binary or source."""
        found = [
            path
            for pattern in (f"{package}_*.deb", f"{package}_*.tar.*")
            for path in self.folder.rglob(pattern)
        ]
        return max(found, key=lambda path: (path.stat().st_mtime, path.name), default=None)

    def files(self, package: str, form: str) -> Iterator[tuple[re.Match[str], bytes]]:
        """Yield the package's files whose paths match ``form``; none if it is not in the folder.

        The archive is checked against apt's lists.
        """
        path = self.find(package)
        if path is None:
            return
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        known = self.checksums.get(package)
        if path.suffix == ".deb" and known and digest not in known:
            raise CorpusError(
                f"{path}: damaged, or of another release than the lists beside it "
                f"(SHA-256 {digest}); delete it"
            )
        version = path.name.split("_")[1].removesuffix(".tar.xz").replace("%3a", ":")
        self.used.append(Used(package, version, digest))
        pattern = re.compile(form)
        try:
            data = _data_of(io.BytesIO(content)) if path.suffix == ".deb" else io.BytesIO(content)
            with tarfile.open(fileobj=data) as tar:
                for member in tar:
                    match = pattern.fullmatch(member.name.removeprefix("./"))
                    if match and member.isfile():
                        file = tar.extractfile(member)
                        assert file is not None
                        yield match, file.read()
        except _DAMAGED as error:
            raise CorpusError(f"{path}: not a readable archive: {worded(error)}") from error

    def record_list(self, path: Path) -> None:
        """Record a list in ``used``."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.used.append(Used(re.sub(r"\.(xz|gz|bz2|lz4)$", "", path.name), "", digest))


def read_list(path: Path) -> str:
    """Return the text of one of apt's lists, unpacked by its name's ending."""
    raw = path.read_bytes()
    try:
        if path.suffix == ".xz":
            raw = lzma.decompress(raw)
        elif path.suffix in (".gz", ".bz2", ".lz4"):
            codec = {".gz": "gzip", ".bz2": "bz2", ".lz4": "lz4"}[path.suffix]
            with pa.CompressedInputStream(io.BytesIO(raw), codec) as stream:
                raw = stream.read()
    except _DAMAGED as error:
        raise CorpusError(f"{path}: not readable: {worded(error)}; delete it") from error
    return raw.decode("utf-8", "replace")


def _data_of(deb: BinaryIO) -> io.BytesIO:
    """Return the member ``data.tar.*`` of a Debian package, an ``ar`` archive (deb(5))."""
    if deb.read(8) != b"!<arch>\n":
        raise ValueError("no Debian package")
    while header := deb.read(_AR_HEADER):
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        content = deb.read(size + size % 2)[:size]
        if name == "data.tar.zst":
            with pa.CompressedInputStream(io.BytesIO(content), "zstd") as stream:
                return io.BytesIO(stream.read())
        if name.startswith("data.tar"):
            return io.BytesIO(content)
    raise ValueError("no data.tar in it")
