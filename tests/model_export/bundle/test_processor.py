"""What /proc/cpuinfo says of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_export.bundle.processor import processor

XEON = "model name\t: Xeon\ncpu family\t: 6\nmodel\t\t: 143\nflags\t\t: fpu avx2 avx512_vnni {}\n"


@pytest.mark.parametrize(
    ("content", "kind", "features"),
    [
        (XEON.format("amx_bf16 amx_int8"), "amx", ("avx2", "avx512_vnni", "amx_int8", "amx_bf16")),
        (XEON.format("amx_bf16 amx_int8") + XEON.format(""), "vnni", ("avx2", "avx512_vnni")),
        ("flags\t: fpu avx_vnni", "vnni", ("avx_vnni",)),
        ("flags\t: fpu avx2 my_avx_vnni_x", "other", ("avx2",)),
        ("Features\t: asimd", "other", ()),
        ("", "other", ()),
    ],
)
def test_a_kind_is_what_all_cores_have(
    content: str, kind: str, features: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(content)
    found = processor(file)
    assert (found.kind, found.features) == (kind, features)
    assert all(feature in str(found) for feature in features)
    if content.startswith("model"):
        assert found.name == "Xeon, family 6, model 143"


def test_the_digest_tells_kinds_apart_and_nothing_else(tmp_path: Path) -> None:
    file, found = tmp_path / "cpuinfo", set()
    for flags in ("", "amx_bf16"):
        for core_mhz in ("cpu MHz : 1", "cpu MHz : 2"):  # changes all the time
            file.write_text(XEON.format(flags) + core_mhz)
            found.add(processor(file).digest)
    found.add(processor(tmp_path / "absent").digest)
    assert len(found) == 3
    assert processor(tmp_path / "absent").name == "unknown processor"
