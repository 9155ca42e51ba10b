"""Opens one seed's clicks on the items of a corpus, for contents to be put in and compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from text.cold.contents import FEATURE, Texts
from training.data.catalogue import Catalogue
from training.data.reader import read_rows
from training.data.rows import Rows
from training.progress import OnProgress
from training.synthetic.sizes import SynthesisSizes
from training.synthetic.synthesize import Truth, synthesize
from training.synthetic.tagged_items import TaggedItems

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Rows over a catalogue whose items are W warm ones and then C cold ones."""

    truth: Truth
    texts: Texts
    train: Rows
    valid: Rows
    cold: Rows  # of cold items alone

    @classmethod
    def draw(
        cls,
        folder: Path,
        tagged: TaggedItems,
        sizes: SynthesisSizes,
        seed: int,
        on_progress: OnProgress,
    ) -> Self:
        """Draw the world of a seed into ``folder`` and read it."""
        truth = synthesize(folder, sizes, seed, on_progress, tagged)
        paths = [folder / "item_planted.parquet", folder / "item_feature.parquet"]
        items = Catalogue.read(paths, truth.sizes.schema)
        train, valid, cold = (
            read_rows(folder / f"{name}.parquet", items, folder / ".cache", on_progress)
            for name in ("train", "valid", "cold")
        )
        first, second = list(tagged.texts)[:2]
        warm = int((~tagged.cold).sum())
        own = {lang: [text or "" for text in tagged.texts[lang]] for lang in (first, second)}
        texts = Texts(
            (first, second), own[first][:warm], {lang: found[warm:] for lang, found in own.items()}
        )
        return cls(truth, texts, train, valid, cold)

    @property
    def planted(self) -> Floats:
        """(W + C, size)"""
        content: Floats = self.train.items.rows[FEATURE][1:]
        return content

    def with_content(self, rows: Rows, warm: Floats, cold: Floats) -> Rows:
        """Return rows over items that have this content."""
        own = rows.items.rows.copy()
        own[FEATURE][1:] = np.concatenate([warm, cold])
        return replace(rows, items=Catalogue(rows.schema, rows.items.ids, own))
