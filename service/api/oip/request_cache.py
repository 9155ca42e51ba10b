"""Caches parsed requests by the bytes of their JSON.

Where ids come as blobs, a client sends the same JSON (names, shapes, sizes) again and again: a hit
costs a hash.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from service.api.oip.id_tensors import NUMERIC, IdTensors
from service.api.oip.inputs import Inputs
from service.api.oip.message import contents_of_infer, read_message
from service.api.oip.outputs import OutputSpec, wanted_outputs
from service.api.oip.parameters import ignored, is_batch, refuse_sequences, timeout_us
from service.api.oip.text_inputs import TextInputs
from service.api.score_models import MOST_CONTEXT_FEATURES

MOST_KEPT, LONGEST_KEPT = 256, 2048  # plans, and bytes of JSON of each


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request without the values in its blobs. Immutable, because requests share it."""

    id: str | None
    inputs: Inputs | TextInputs
    wanted: tuple[OutputSpec, ...]
    timeout_us: int  # 0: not given
    batch: bool
    ignored: tuple[str, ...]

    @property
    def comes_again(self) -> bool:
        """Whether another request may have the same JSON."""
        return self.id is None and self.inputs.in_blobs


class RequestCache:
    """Keeps the newest requests whose JSON may come again."""

    def __init__(
        self,
        most_candidates: int,
        features: int = MOST_CONTEXT_FEATURES,
        tensors: IdTensors = NUMERIC,
    ) -> None:
        """``features``: the context features that there are."""
        self._most_candidates, self._tensors = most_candidates, tensors
        self._contents = contents_of_infer(most_candidates, features, tensors.contents)
        self._kept: OrderedDict[bytes, ParsedRequest] = OrderedDict()  # by their JSON

    def read(self, header: bytes) -> ParsedRequest:
        """Return the parsed request. Malformed or InvalidField, which are not kept."""
        parsed = self._kept.get(header)
        if parsed is None:
            self._contents.check(header)
            parsed = _read(header, self._most_candidates, self._tensors)
            if parsed.comes_again and len(header) <= LONGEST_KEPT:
                if len(self._kept) >= MOST_KEPT:
                    self._kept.popitem(last=False)
                self._kept[header] = parsed
        return parsed


def _read(header: bytes, most_candidates: int, tensors: IdTensors) -> ParsedRequest:
    # FP32, which may be written with escapes. A search for one byte is the fastest.
    mixed = b"F" in header or b"\\" in header
    message = read_message(header, tensors.documented if mixed else tensors.message)
    refuse_sequences(message)
    return ParsedRequest(
        id=message.id,
        wanted=tuple(wanted_outputs(message)),
        inputs=tensors.inputs(message, most_candidates),
        timeout_us=timeout_us(message),
        batch=is_batch(message),
        ignored=tuple(ignored(message)),
    )
