"""Reads an untrusted ``.npz`` within bounds: sizes are checked before anything is inflated.

numpy and zipfile trust the file: a few megabytes may inflate to gigabytes, and a directory of a
million empty members takes as much memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from model_export.bundle import plain_files

# The end of a zip: signature, disks, entries, size and place of the directory, comment's length.
END = struct.Struct("<4s4H2LH")
END_SIGNATURE, ZIP64_SIGNATURE, ZIP64_BYTES = b"PK\5\6", b"PK\6\7", 20
MOST_DIRECTORY_BYTES = 16_384
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(
    path: Path, names: Iterable[str], most_bytes: int, optional: frozenset[str] = frozenset()
) -> dict[str, NDArray[Any]]:
    """Read the arrays ``names``, the only ones, of at most ``most_bytes`` on disk and inflated;
    ``optional`` ones may be absent. Raises ValueError or BadZipFile,
    and OSError and BundleError as ``plain_files.read``."""
    content = plain_files.read(path, most_bytes)
    _check_directory(content)
    with ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        expected = sorted(f"{name}.npy" for name in names)
        found = sorted(member.filename for member in members)
        may_lack = {f"{name}.npy" for name in optional}
        if found != [name for name in expected if name in found or name not in may_lack]:
            raise ValueError(f"holds other arrays than {', '.join(expected)}")
        size = sum(member.file_size for member in members)
        if size > most_bytes:
            raise ValueError(f"{size:,} bytes inflated, at most {most_bytes:,} are allowed")
        return {member.filename[:-4]: _array(archive, member) for member in members}


def _check_directory(content: bytes) -> None:
    """Check the size of the directory, which zipfile reads without a limit."""
    if len(content) < END.size:
        raise BadZipFile("too short for a zip")
    signature, *_, size, _, comment = END.unpack(content[-END.size :])
    if signature != END_SIGNATURE or comment:
        raise BadZipFile("truncated, or followed by other data")
    if size > MOST_DIRECTORY_BYTES or content[-END.size - ZIP64_BYTES :].startswith(
        ZIP64_SIGNATURE
    ):
        raise BadZipFile("oversized directory")


def _array(archive: ZipFile, member: ZipInfo) -> NDArray[Any]:
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{member.filename}: compressed by method {member.compress_type}")
    with archive.open(member) as stream:
        data = io.BytesIO(stream.read(member.file_size))
    version = np.lib.format.read_magic(data)
    if version not in HEADERS:
        raise ValueError(f"{member.filename}: format {version}")
    shape, fortran, dtype = HEADERS[version](data)
    count = 1
    for length in shape:
        count *= length
    left = member.file_size - data.tell()
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"{member.filename}: unexpected {dtype} {shape}")
    if count * dtype.itemsize != left:
        raise ValueError(f"{member.filename}: {left:,} bytes for {dtype} {shape}")
    array = np.frombuffer(data.getvalue(), dtype, count, data.tell())
    return array.reshape(shape, order="F" if fortran else "C").copy()
