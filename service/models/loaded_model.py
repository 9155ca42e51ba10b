"""One model version in memory: its graphs, its items, its fetches and its statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from feature_store.schema import FeatureSchema
from model_export.bundle.runtime import FoldedModel
from service.items.fetcher import ItemFetcher
from service.items.own_file import OwnFile
from service.items.shared_file import TableFile
from service.items.table import ItemTable
from service.observability.version_stats import VersionStats

if TYPE_CHECKING:
    from text.runtime.encoder import TextEncoder  # takes an extra


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model, the items derived for it, and the encoder that makes content for it."""

    model: FoldedModel
    table: ItemTable
    encoder: TextEncoder | None = None  # in a service with an encoder
    file: TableFile | OwnFile | None = None  # of the table, open as long as this is referred to
    stats: VersionStats = field(default_factory=VersionStats)
    fetcher: ItemFetcher = field(init=False)
    name: str = field(init=False)
    schema: FeatureSchema = field(init=False)
    has_user: bool = field(init=False)  # user or request features
    request_features: frozenset[str] = field(init=False)  # their names

    @property
    def about_encoder(self) -> dict[str, str | None] | None:
        """Version and content digest of its encoder, for listings; None without one."""
        encoder = self.encoder
        if encoder is None:
            return None
        return {"version": encoder.bundle.version, "content": encoder.content_digest}

    def __post_init__(self) -> None:
        fill = partial(object.__setattr__, self)  # frozen
        fill("fetcher", ItemFetcher(self.model, self.table))
        fill("name", self.model.version)
        fill("schema", self.model.schema)
        fill("has_user", bool(self.model.schema.user or self.model.schema.request))
        fill("request_features", frozenset(f.name for f in self.model.schema.request))
