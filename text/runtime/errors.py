"""The errors of encoding; bundles raise ``model_export``'s BundleError."""

from __future__ import annotations

MOST_SHOWN = 40  # characters of a text in a message


class InputTypeError(TypeError):
    """An argument of another type than a text, or a list of texts or spans."""

    def __init__(self, name: str, value: object, fault: str) -> None:
        super().__init__(f"{name}: {type(value).__name__}: {fault}")


class TextError(ValueError):
    """A text that cannot be encoded; ``index`` is its place in the list."""

    def __init__(self, index: int, text: str, fault: str) -> None:
        self.index, self.fault = index, fault
        super().__init__(f"text {index} ({shown(text)}): {fault}")


class TextTooLong(TextError):
    """A text of more tokens than the encoder reads; ``tokens`` is their number, at least.

    ``brief`` is the fault for a caller that cannot ask to truncate.
    """

    def __init__(self, index: int, text: str, counted: str, longest: int, tokens: int) -> None:
        self.brief = f"{counted} tokens, at most {longest:,} are read; shorten the text"
        super().__init__(index, text, f"{self.brief} or ask to truncate")
        self.tokens = tokens


def shown(text: str) -> str:
    """Quote the beginning of a text, printable."""
    return ascii(text[:MOST_SHOWN]) + ("…" if len(text) > MOST_SHOWN else "")
