"""The errors of ``model_export``; messages name the file, the place and the remedy."""

from __future__ import annotations


class BundleError(Exception):
    """A bundle that cannot be read, trusted or written."""


class ParityError(BundleError):
    """The folded graphs' answers differ from the PyTorch network's; nothing was published."""


class GateError(BundleError):
    """int8 differs too much from float32 on held-out data; nothing was published."""


class ProviderError(BundleError):
    """The graphs cannot run on the chosen execution provider."""
