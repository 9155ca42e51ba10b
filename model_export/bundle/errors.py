"""The errors of ``model_export``; messages name the file, the place and the remedy."""

from __future__ import annotations


class BundleError(Exception):
    """A bundle that cannot be read, trusted or written."""


class NotYet(BundleError):
    """A bundle that may be loaded later as it is: what it needs is not there yet."""


class ParityError(BundleError):
    """The folded graphs' answers differ from the PyTorch network's; nothing was published."""


class GateError(BundleError):
    """int8 or bf16 differs too much from float32 on held-out data; nothing was published."""


class ProviderError(BundleError):
    """The graphs cannot run on the chosen execution provider."""


def said(error: Exception) -> str:
    """Quote the error of onnxruntime, or of another library, on one line: its words, which may
    advise what does not apply here, are not to be taken for ours."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    return f'{kind} "{text[:300]}{"…" if text[300:] else ""}"' if text else kind
