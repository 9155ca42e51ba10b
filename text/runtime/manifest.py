"""The format of an encoder bundle's ``manifest.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from model_export.bundle.manifest import GOLDEN, MANIFEST, FileName, FileRecord, Version

__all__ = ["GOLDEN", "MANIFEST", "FileName", "FileRecord", "Version"]

FORMAT: Literal[1] = 1
TOKENIZER = "tokenizer.json"
WEIGHTS = "encoder.weights"  # of all float32 graphs
CONTENT = "content.npz"  # map from vectors to content
PACKED, LONG, INT8 = "encoder", "encoder.long", "encoder.int8"  # graphs: NAME.onnx
TOLERANCE = 2e-6  # of a number of a unit vector
MOST_RHO_LOSS, LEAST_OVERLAP = 0.005, 0.95  # limits of the gate
MOST_FILES = 64
MOST_WIDTHS = 16
MOST_LONGEST, MOST_ROW = 65_536, 4096  # tokens; a row's attention has the square of its length

Precision = Literal["fp32", "int8"]
Width = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderShape(_Frozen):
    """The network's sizes, by the names of ``text/encoder/recipes``."""

    variant: Literal["base", "qk_norm", "code"]
    activation: Literal["gelu", "relu"]
    vocabulary: Annotated[int, Field(ge=1)]
    hidden: Annotated[int, Field(ge=1)]  # D, of a vector
    layers: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    intermediate: Annotated[int, Field(ge=1)]
    token_types: Annotated[int, Field(ge=1)]
    norm_epsilon: float


class Lengths(_Frozen):
    """Lengths in tokens, special tokens included; bounded, as memory is by them."""

    # Allowed; longer texts are refused, or cut if asked.
    longest: Annotated[int, Field(ge=3, le=MOST_LONGEST)]
    trained: int | None  # longest of training, where it is known
    row: Annotated[int, Field(ge=1, le=MOST_ROW)]  # least length of a row of several texts
    # Tokens of one run of the graph, unless a text has more.
    call: Annotated[int, Field(ge=1, le=MOST_LONGEST)]
    # Longest text of a row; a longer one is in blocks.
    packed: Annotated[int, Field(ge=1, le=MOST_ROW)] = 1024


class Origin(_Frozen):
    """Origin of the weights."""

    checkpoint: str | None = None  # the folder's name
    weights_sha256: str | None = None  # of the checkpoint's tensors
    corpus: str | None = None  # digest of the corpus
    metrics: dict[str, Any] = {}


class Parity(_Frozen):
    """Error of the float32 graphs against PyTorch in float64, at the build."""

    tolerance: Annotated[float, Field(ge=0, le=TOLERANCE)]
    max_abs_error: float  # of a number of a unit vector
    worst_case: str
    cases: int


class Gate(_Frozen):
    """Differences of another number format from float32 on texts of a corpus."""

    passed: bool
    forced: bool  # published although it did not pass
    data: str  # digest of the corpus
    texts: int
    overlap: float  # share of each text's 10 nearest texts that are the same
    pairs: int  # graded; 0 where the corpus has none of different grades
    rho: float | None  # Spearman's correlation of cosines and grades
    rho_float32: float | None
    max_abs_error: float  # of a number of a unit vector
    kept: list[str] = []  # products left in float32

    @property
    def rho_loss(self) -> float:
        """How much lower the correlation is than that of float32."""
        if self.rho is None or self.rho_float32 is None:
            return 0.0
        return self.rho_float32 - self.rho


class Content(_Frozen):
    """The second output of the float32 graphs."""

    digest: str  # ``content_digest`` of encoder and map
    feature: str  # dense item feature that it is for
    size: Annotated[int, Field(ge=1)]  # C
    max_abs_error: float  # against the map in float64, at the build


class EncoderManifest(_Frozen):
    format: Literal[1]
    version: Version
    created: AwareDatetime  # UTC; orders versions
    languages: list[str]  # of the corpus; empty where it is not known
    shape: EncoderShape
    lengths: Lengths
    parity: Parity
    training: Origin
    gates: dict[str, Gate] = {}  # by precision
    content: Content | None = None
    # Widths of beginnings of a vector that are trained as vectors, too (Matryoshka).
    widths: Annotated[tuple[Width, ...], Field(max_length=MOST_WIDTHS)] = ()
    files: Annotated[dict[FileName, FileRecord], Field(max_length=MOST_FILES)]

    @model_validator(mode="after")
    def _has_the_map(self) -> EncoderManifest:
        if (self.content is None) != (CONTENT not in self.files):
            raise ValueError(f"content and the file {CONTENT}: one without the other")
        return self

    @model_validator(mode="after")
    def _has_widths(self) -> EncoderManifest:
        if any(width >= self.shape.hidden for width in self.widths):
            raise ValueError(f"widths: beginnings are below {self.shape.hidden}, the vector's own")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit ``content`` and ``widths`` where there are none: older releases reject them."""
        values: dict[str, Any] = serialise(self)
        for name in ("content", "widths"):
            if not values[name]:
                del values[name]
        return values

    @property
    def dimensions(self) -> list[int]:
        """Numbers that a vector may have, the most first."""
        return [self.shape.hidden, *sorted(set(self.widths), reverse=True)]

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of this bundle's graphs."""
        return tuple(g for g in (PACKED, LONG, INT8) if f"{g}.onnx" in self.files)
