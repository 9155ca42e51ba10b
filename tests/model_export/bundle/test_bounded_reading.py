"""What a bundle says of itself is not believed before it is known how much there is to read."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import orjson
import pytest

from model_export.bundle.bundle import Bundle, read_manifest
from model_export.bundle.errors import BundleError
from model_export.bundle.golden import MOST_BYTES, MOST_CANDIDATES, MOST_ITEMS, Golden
from model_export.bundle.manifest import MANIFEST, MOST_MANIFEST_BYTES

MB = 1 << 20
SMALL_MB = 24  # what a refusal may take at most, a file of the most bytes allowed not being read


@pytest.fixture
def taken() -> Iterator[Callable[[], float]]:
    """Megabytes that Python and numpy held at most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1] / MB
    tracemalloc.stop()


@pytest.fixture
def golden(bundle: Bundle, tmp_path: Path) -> Path:
    file = tmp_path / "golden.npz"
    file.write_bytes((bundle.path / "golden.npz").read_bytes())
    return file


def members(file: Path) -> dict[str, bytes]:
    with ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(file: Path, content: dict[str, bytes], method: int = ZIP_STORED) -> None:
    with ZipFile(file, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def inflate(file: Path) -> None:
    """A few hundred kilobytes that become four times what is allowed."""
    content = members(file)
    del content["probability.npy"]
    floats = MOST_BYTES  # of 4 bytes
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        with archive.open("probability.npy", "w", force_zip64=True) as stream:
            stream.write(header((floats,)))
            for _ in range(4 * floats // MB):
                stream.write(bytes(MB))


def claim_more_than_there_is(file: Path) -> None:
    rewrite(file, members(file) | {"probability.npy": header((10**12,)) + bytes(64)})


def claim_an_array_of_nothing(file: Path) -> None:
    rewrite(file, members(file) | {"names.npy": header((10**12,), "<U0")})


def hold_another_array(file: Path) -> None:
    rewrite(file, members(file) | {"more.npy": header((1,)) + bytes(4)})


def hold_one_twice(file: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), ZipFile(file, "a") as archive:
        archive.writestr("names.npy", b"")


def have_a_long_directory(file: Path) -> None:
    rewrite(file, members(file) | {f"{i}.npy": b"" for i in range(1000)})


def claim_a_short_directory(file: Path) -> None:
    """As above, and the real size is where only zipfile looks."""
    have_a_long_directory(file)
    content = file.read_bytes()
    end = struct.unpack("<4s4H2LH", content[-22:])
    size, place = end[5], end[6]
    zip64 = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1008, 1008, size, place)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    ending = struct.pack("<4s4H2LH", *end[:5], 100, place, 0)
    file.write_bytes(content[:-22] + zip64 + locator + ending)


def be_packed_otherwise(file: Path) -> None:
    rewrite(file, members(file), ZIP_BZIP2)


def hold_objects(file: Path) -> None:
    rewrite(file, members(file) | {"names.npy": header((1,), "|O") + bytes(8)})


def be_large_as_it_lies_there(file: Path) -> None:
    os.truncate(file, MOST_BYTES + 1)


def break_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def be_empty(file: Path) -> None:
    os.truncate(file, 0)


def be_damaged_inside(file: Path) -> None:
    rewrite(file, members(file), ZIP_DEFLATED)
    content = bytearray(file.read_bytes())
    content[60:200] = os.urandom(140)
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        inflate,
        claim_more_than_there_is,
        claim_an_array_of_nothing,
        hold_another_array,
        hold_one_twice,
        have_a_long_directory,
        claim_a_short_directory,
        be_packed_otherwise,
        hold_objects,
        be_large_as_it_lies_there,
        break_off,
        be_empty,
        be_damaged_inside,
    ],
    ids=lambda value: value.__name__,
)
def test_golden_answers_are_refused_before_they_fill_the_memory(
    golden: Path, damage: Callable[[Path], None], taken: Callable[[], float]
) -> None:
    damage(golden)
    tracemalloc.reset_peak()
    with pytest.raises(BundleError, match=r"golden\.npz: "):
        Golden.load(golden)
    assert taken() < SMALL_MB


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return dict(stored)


def test_compressed_golden_answers_are_read_as_well(golden: Path, bundle: Bundle) -> None:
    np.savez_compressed(golden, **arrays(golden))
    np.testing.assert_array_equal(Golden.load(golden).items, bundle.golden().items)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: {"items": np.resize(a["items"], MOST_ITEMS + 1)}, "items: 16,385, at most"),
        (
            lambda a: {
                "candidates": np.zeros(MOST_CANDIDATES + 1, np.int32),
                "probability": np.zeros(MOST_CANDIDATES + 1, np.float32),
                "context": np.zeros((MOST_CANDIDATES + 1, a["context"].shape[1]), np.int32),
                "candidate_offsets": np.array([0, MOST_CANDIDATES + 1]),
                "history_offsets": np.array([0, len(a["history"])]),
                "names": a["names"][:1],
            },
            "candidate_offsets: request 0 has 1025 items",
        ),
    ],
)
def test_no_golden_question_is_larger_than_a_request(
    golden: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], reason: str
) -> None:
    """What is asked takes memory as well, and a child's limits are not the service's."""
    stored = arrays(golden)
    np.savez(golden, **stored | change(stored))
    with pytest.raises(BundleError, match=reason):
        Golden.load(golden)


@pytest.fixture
def manifest(bundle: Bundle, tmp_path: Path) -> Path:
    folder = tmp_path / bundle.version
    folder.mkdir()
    file = folder / MANIFEST
    file.write_bytes((bundle.path / MANIFEST).read_bytes())
    return file


def be_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def be_a_link(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def be_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def be_huge_and_hollow(file: Path) -> None:
    os.truncate(file, 1_500_000_000)


def change(**fields: object) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        content = orjson.dumps(orjson.loads(file.read_bytes()) | fields)
        assert len(content) < MOST_MANIFEST_BYTES
        file.write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (be_a_pipe, "not a plain file"),
        (be_a_link, "a symbolic link"),
        (be_a_folder, "not a plain file"),
        (be_huge_and_hollow, r"1,500,000,000 bytes, at most 1,048,576 are allowed"),
        (change(created="2026-11-21T09:30:00"), r"created: has no time zone"),
        (change(created="never"), "created: "),
        (change(files={f"f{i}": 1 for i in range(20_000)}), "files: 20,000, and a bundle has"),
        (change(**{f"f{i}": 1 for i in range(80_000)}), "more than .* 32,768 values"),
        (change(feature_schema={"item": [1] * 400_000}), "more than .* 32,768 values"),
        (change(feature_schema={"item": [1] * 30_000}), "feature_schema"),
    ],
)
def test_a_manifest_is_refused_before_it_fills_the_memory(
    manifest: Path, damage: Callable[[Path], None], reason: str, taken: Callable[[], float]
) -> None:
    damage(manifest)
    tracemalloc.reset_peak()
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{reason}"):
        read_manifest(manifest.parent)
    assert taken() < SMALL_MB
