"""The tensors of ids: INT64, or BYTES where the store's ids are texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from service.api.body import Contents, TextContents
from service.api.id_kind import IdKind, NumericIds
from service.api.oip.inputs import DATATYPE, Inputs
from service.api.oip.message import TEXTS, InferRequest, MixedInferRequest, TextInferRequest
from service.api.oip.text_inputs import TextInputs


@dataclass(frozen=True, slots=True)
class IdTensors:
    """How the tensors of ids are declared and read."""

    datatype: str
    contents: type[Contents]
    message: type[InferRequest]
    inputs: Callable[[InferRequest, int], Inputs | TextInputs]
    with_numbers: type[InferRequest] | None = None  # the message if some are FP32, if another

    @property
    def documented(self) -> type[InferRequest]:
        return self.with_numbers or self.message


NUMERIC = IdTensors(DATATYPE, Contents, InferRequest, Inputs.of, MixedInferRequest)


def id_tensors(ids: IdKind) -> IdTensors:
    if isinstance(ids, NumericIds):
        return NUMERIC
    of = partial(TextInputs.of, ids)
    return IdTensors(TEXTS, TextContents, TextInferRequest, of)
