"""Metrics of requests for vectors of texts; all 0 in a service without an encoder."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

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
