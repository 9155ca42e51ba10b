"""Encoders whose map makes the small world's feature ``content``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.text import small
from text.export.build import build
from text.runtime.bundle import EncoderBundle
from text.runtime.content import TEXT, Affine, ContentMap, MapAbout, PartAbout

FEATURE, SIZE = "content", 6


def content_encoder(folder: Path, version: str = "words-2", seed: int = 0) -> Path:
    """Build an encoder of random weights and a random map; another ``seed`` is another map."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        small.checkpoint(checkpoint)
    plain = folder / "plain" / "plain"
    if not plain.exists():
        build(checkpoint, folder / "plain", version="plain", longest=small.LONGEST)
    bundle = EncoderBundle.open(plain)
    width = bundle.manifest.shape.hidden
    random = np.random.default_rng(seed)
    part = PartAbout(has=(TEXT,), items=100, penalty=None, r2=None, explained=0.5)
    about = MapAbout(
        method="pca",
        network=bundle.network,
        feature=FEATURE,
        size=SIZE,
        inputs={TEXT: width},
        parts=(part,),
    )
    affine = Affine(random.normal(0, 3, (width, SIZE)), random.normal(0, 1, SIZE))
    made = ContentMap(about, {(TEXT,): affine}, np.zeros(SIZE), np.ones(SIZE))
    path = folder / f"{version}.npz"
    path.write_bytes(made.encoded())
    return build(checkpoint, folder, version=version, longest=small.LONGEST, content=path).path
