"""Makes the text encoding of a service that has an encoder. Imports what takes an extra lazily."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from service.artifacts.importer import ImportPolicy
from service.observability.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from service.encoding.encoding import TextEncoding  # takes an extra
    from text.runtime.encoder import TextEncoder


def check_encoder(settings: Settings) -> None:
    """Raise BundleError where there is no encoder at all, before models are copied."""
    if settings.encoder is not None:
        from service.encoding.repository import EncoderRepository

        EncoderRepository(settings.encoder).find(None)


def make_encoding(
    settings: Settings,
    policy: ImportPolicy,
    metrics: Metrics,
    encoders: Callable[[], list[TextEncoder]],
) -> TextEncoding | None:
    """Make it; None without QIN_ENCODER. ``encoders``: those of the loaded versions."""
    if settings.encoder is None:
        return None
    from service.encoding.encoding import TextEncoding
    from service.encoding.graph_threads import GraphThreads
    from service.encoding.loading import EncoderLoader

    threads = settings.encoder_threads
    graphs = GraphThreads(threads)
    loader = EncoderLoader(settings.encoder, settings, policy, graphs)
    return TextEncoding(loader, metrics, threads, graphs, encoders)
