"""Metrics of requests for vectors of texts; all 0 in a service without an encoder."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Info

from service.observability.fast_metrics import Counter


class EncoderMetrics:
    """One attribute per metric."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "qin_encoder_requests",
            "Requests for vectors of texts by outcome: admitted, or refused (429).",
            ["outcome"],
            registry=registry,
        )
        self.admitted, self.refused = (requests.labels(o) for o in ("admitted", "refused"))
        texts = Counter(
            "qin_encoder_texts",
            "Texts answered with a vector, by source: encoded, or cached.",
            ["source"],
            registry=registry,
        )
        self.encoded, self.cached = (texts.labels(s) for s in ("encoded", "cached"))
        self.tokens = Counter(
            "qin_encoder_tokens", "Tokens of the texts that were encoded.", registry=registry
        )
        self._active = Info("qin_encoder", "The active version's encoder.", registry=registry)

    def show(self, about: Mapping[str, str | None] | None) -> None:
        """Show version and content digest of the active version's encoder, if it has one."""
        if about is not None:
            self._active.info({name: value or "" for name, value in about.items()})
