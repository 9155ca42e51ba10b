"""Lends copies of bundles that one service of a test process has verified to the next ones.

A verification takes an interpreter, .4 s of processor time, at each start with an empty private
folder. Copies are keyed by the digest of their manifest, as the service keys them; a bundle without
a copy is verified. Tests of verification, and of damaged files, give ``QIN_PRIVATE`` and so an
empty folder.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path

from service.artifacts.local_copies import LocalCopies
from service.artifacts.sandbox import PROVED
from tests.session_folders import session_folder


@cache
def _kept() -> Path:
    return session_folder("verified")


def lend(private: Path, models: Path) -> None:
    """Put copies of the bundles of ``models``, or of the one that it is, into a private folder."""
    for manifest in (*models.glob("manifest.json"), *models.glob("*/manifest.json")):
        if not manifest.is_file():
            continue
        kept = _kept() / hashlib.sha256(manifest.read_bytes()).hexdigest()
        if kept.is_dir():
            copies = LocalCopies(private, models)
            copies.prepare()
            place = copies.copy(kept.name, manifest.parent.name).parent
            shutil.copytree(kept, place, dirs_exist_ok=True)


def keep(private: Path) -> None:
    """Move what was verified out of the private folder of a service that has ended."""
    for proved in private.glob(f"*/copies/*/{PROVED}"):
        if not (_kept() / proved.parent.name).exists():
            shutil.move(proved.parent, _kept())
