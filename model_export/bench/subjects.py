"""Networks to measure: random weights, a checkpoint, or a bundle."""

from __future__ import annotations

from feature_store.schema import FeatureSchema
from model_export.bench.run import Subject
from model_export.bundle.bundle import Bundle
from model_export.quality.random_network import random_network
from training.qin import QIN, QINSizes


def random_weights(schema: FeatureSchema, sizes: QINSizes | None = None) -> Subject:
    """Random weights with batch-norm statistics set per history length."""

    def network(history: int) -> QIN:
        return random_network(schema.model_copy(update={"history_length": history}), sizes)

    return Subject(network, f"random weights, schema {schema.name}")


def trained(network: QIN, name: str) -> Subject:
    """A trained network at any history length: no parameter depends on it."""

    def of(history: int) -> QIN:
        network.schema = network.schema.model_copy(update={"history_length": history})
        return network.eval()

    return Subject(of, name)


def published(bundle: Bundle) -> Subject:
    """A bundle's graphs, and as unfolded network a random one of the same sizes."""
    sizes = QINSizes(**bundle.manifest.sizes.model_dump())
    network = random_weights(bundle.schema, sizes).network
    return Subject(network, f"bundle {bundle.version}", bundle)
