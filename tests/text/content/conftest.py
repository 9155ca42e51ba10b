"""A catalogue whose feature is planted in its texts and vectors, maps fitted to it, a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.text import small
from text.content.fit import fit
from text.content.items import ItemTexts
from text.export.build import build
from text.runtime.content import ContentMap
from text.runtime.encoder import TextEncoder

ITEMS, SIZE, IMAGE = 600, 8, 5
FEATURE = "item_emb_d8"


@pytest.fixture(scope="session")
def encoder(bundle: Path) -> TextEncoder:
    return TextEncoder.open(bundle)


@pytest.fixture(scope="session")
def catalogue(encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items with texts in English, German or both, or none; most with an image's vector."""
    random = np.random.default_rng(0)

    def text() -> str:
        return " ".join(random.choice(small.WORDS, random.integers(2, 9)))

    english = [text() if random.random() < 0.7 else None for _ in range(ITEMS)]
    german = [text() if random.random() < 0.5 else "" for _ in range(ITEMS)]
    image = random.normal(3, 2, (ITEMS, IMAGE))
    seen = random.random(ITEMS) < 0.8
    axes = np.random.default_rng(1).normal(size=(encoder.width + IMAGE, SIZE))
    feature = np.zeros((ITEMS, SIZE))
    for row, texts in enumerate(zip(english, german, strict=True)):
        own = [each for each in texts if each]
        if own:
            feature[row] = encoder.encode(own).vectors.mean(0) @ axes[: encoder.width] + 5
        if seen[row]:
            feature[row] += image[row] @ axes[encoder.width :] / 20
    table = {
        "item_id": pa.array(range(1, ITEMS + 1)),
        "text_en": pa.array(english, pa.string()),
        "text_de": pa.array(german, pa.string()),
        "image": pa.array([v if s else None for v, s in zip(image.tolist(), seen, strict=True)]),
        FEATURE: pa.array(feature.tolist()),
        "level": pa.array([row % 3 for row in range(ITEMS)]),
    }
    path = tmp_path_factory.mktemp("catalogue") / "items.parquet"
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture(scope="session")
def ridge_map(
    encoder: TextEncoder, catalogue: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    fitted = fit(encoder, ItemTexts(catalogue, (), ["image", FEATURE]), FEATURE, into=FEATURE)
    path = tmp_path_factory.mktemp("map") / "map.npz"
    path.write_bytes(fitted.encoded())
    return path


@pytest.fixture(scope="session")
def content(ridge_map: Path) -> ContentMap:
    return ContentMap.load(ridge_map)


@pytest.fixture(scope="session")
def content_bundle(checkpoint: Path, ridge_map: Path) -> Path:
    """A bundle with the map, that splits texts of more than 64 tokens into blocks."""
    out = checkpoint.parent / "content"
    return build(checkpoint, out, version="v1", longest=1100, content=ridge_map).path
