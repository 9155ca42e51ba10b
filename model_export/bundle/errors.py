"""Everything this room raises on purpose; the message names the file, the place and the remedy."""

from __future__ import annotations


class BundleError(Exception):
    """A bundle that cannot be read, trusted or written."""


class ParityError(BundleError):
    """The folded graphs do not answer as the PyTorch network does; nothing was published."""


class GateError(BundleError):
    """int8 changes too much on held-out data; nothing was published."""


class ProviderError(BundleError):
    """The graphs cannot run where they were asked to."""
