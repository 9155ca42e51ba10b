"""Kept libraries are what the note beside them says."""

from __future__ import annotations

import re
from hashlib import sha256

from service.console.assets import ROOT, TYPES, Assets

VENDOR = ROOT / "vendor"


def test_every_kept_file_has_the_digest_in_the_note() -> None:
    note = (VENDOR / "README.md").read_text()
    noted = dict(re.findall(r"^\| `([\w./-]+)` \| `([0-9a-f]{64})` \|$", note, re.MULTILINE))
    found = {
        str(path.relative_to(VENDOR)): sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.glob("*/*")
    }
    assert noted == found


def test_every_library_comes_with_its_licence() -> None:
    for folder in VENDOR.iterdir():
        if folder.is_dir():
            assert (folder / "LICENSE").is_file()


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in [*ROOT.glob("templates/*"), *ROOT.glob("static/*")]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//cdn" not in text
        assert not re.search(r"https?://", text), path
        assert "innerHTML" not in text, path
        assert not re.search(r"\sstyle=|\son\w+=\"|<script>", text), path  # the policy forbids them


def test_an_address_changes_with_the_content() -> None:
    assets = Assets()
    for path in ROOT.glob("static/*"):
        address = assets.address(path.name)
        found = assets.find(address.removeprefix("/console/assets/"))
        assert found is not None
        assert sha256(found.content).hexdigest()[:12] in address
        assert found.media_type == TYPES[path.suffix]
