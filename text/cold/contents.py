"""Makes the content of warm and of cold items, by the arm whose content it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from text.cold.components import TfIdfComponents
from text.content.embed import contents_of
from text.content.fit import fit
from text.content.items import ItemBatch, ItemTexts, encode
from text.runtime.content import TEXT
from text.runtime.encoder import TextEncoder

Arm = Literal["none", "tf-idf", "pca", "ridge", "planted"]
ARMS: tuple[Arm, ...] = ("none", "tf-idf", "pca", "ridge", "planted")
OURS: tuple[Arm, ...] = ("pca", "ridge")  # of the encoder
FEATURE = "item_emb_d128"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """W warm items with texts in the first language, C cold ones with a text in each of two."""

    languages: tuple[str, str]
    warm: Sequence[str]  # (W,)
    cold: dict[str, Sequence[str]]  # language -> (C,)


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """Numbers of the feature for items, as the texts that they are of."""

    warm: Floats  # (W, size)
    cold: dict[str, Floats]  # language -> (C, size)


def contents(
    arm: Arm, texts: Texts, planted: Floats, encoder: TextEncoder, folder: Path
) -> Contents:
    """Make an arm's contents; ``planted`` (W + C, size) are what the ceiling knows.

    Components and maps are fitted to warm items in the first language alone. ``folder`` keeps the
    table that a map is fitted to. Raises ValueError, DataFileError.
    """
    warm, size = len(texts.warm), planted.shape[1]
    match arm:
        case "none":
            planted = np.zeros_like(planted)
            return Contents(planted[:warm], dict.fromkeys(texts.languages, planted[warm:]))
        case "planted":
            return Contents(planted[:warm], dict.fromkeys(texts.languages, planted[warm:]))
        case "tf-idf":
            components = TfIdfComponents.fit(texts.warm, size)
            cold = {lang: components.content(own) for lang, own in texts.cold.items()}
            return Contents(components.content(texts.warm), cold)
    path = folder / "warm.parquet"
    table = {TEXT: pa.array(texts.warm), "planted": pa.array(planted[:warm].tolist())}
    pq.write_table(pa.table(table), path)
    given, into = (["planted"], "planted") if arm == "ridge" else ([], None)
    fitted = fit(encoder, ItemTexts(path, [TEXT], given), FEATURE, into=into, size=size)

    def of(own: Sequence[str]) -> Floats:
        batch = ItemBatch(0, len(own), {TEXT: list(own)}, {}, {})
        found = contents_of(fitted, encode(encoder, batch))
        nothing = np.zeros(size, np.float32)  # a text without a token
        return np.stack([found.get(row, nothing) for row in range(len(own))])

    return Contents(of(texts.warm), {lang: of(own) for lang, own in texts.cold.items()})
