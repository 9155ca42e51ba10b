"""The format of a bundle's ``manifest.json``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feature_store.contents import DIGEST_PATTERN, Origin, Wanted
from feature_store.schema import Dense, FeatureSchema

# 1: golden answers in float32, one tolerance for all. 3: user or request features, features of item
# and context, or a bias in W_o; written only for those, so that earlier releases read the others.
PLAIN_FORMAT, FORMAT = 2, 3
READABLE = (1, PLAIN_FORMAT, FORMAT)
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"  # optional: Ed25519 over the manifest, in base64
GOLDEN = "golden.npz"
MOST_MANIFEST_BYTES, MOST_MANIFEST_VALUES = 1 << 20, 1 << 15
MOST_AHEAD = timedelta(minutes=5)  # of ``created`` to this host's clock
MOST_FILES = 64  # listed in a manifest; a bundle has at most 15 and a file per large table of users
TOLERANCE = 1e-5  # of a golden probability; more is allowed where float32 rounds more
GRAPHS = ("item_tower", "history_tower", "ranker")  # of every bundle
CONTEXT_TOWER = "context_tower"  # if the schema has context features
USER_TOWER = "user_tower"  # if the schema has user or request features
INT8 = "ranker.int8"  # if requested and passed by the gate
ROWS = "ranker.rows"  # the ranker for OpenVINO, where it is of another form than the CPU's
MOST_DELTA_AUC, MOST_MEAN_DELTA_P = 1e-4, 1e-3  # limits of the gates, on held-out data

VERSION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]  # bytes


class NetworkSizes(_Frozen):
    """The network's sizes beyond its schema."""

    attention_width: int
    layers: int
    rows: int
    output_bias: bool = False

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit ``output_bias`` where there is none: earlier releases reject it."""
        content: dict[str, Any] = serialise(self)
        if not self.output_bias:
            del content["output_bias"]
        return content


class Training(_Frozen):
    """Origin of the weights."""

    checkpoint: str | None = None  # the folder's name; None for random weights
    weights_sha256: str | None = None  # of the checkpoint's tensors
    metrics: dict[str, Any] = {}


class Parity(_Frozen):
    """Error of the graphs against the PyTorch network, at the build."""

    tolerance: float  # largest bound of a golden answer
    max_abs_error: float  # on the probability
    worst_case: str
    cases: int
    informative: float  # share of golden probabilities between 0.02 and 0.98
    fold_error: float | None = None  # of the folds in float64; None: format 1
    rounding_accepted: bool = False  # published with --accept-rounding, beyond the bounds


class Calibration(_Frozen):
    """Platt scaling folded into the last layer: sigmoid(slope·logit + intercept)."""

    slope: float
    intercept: float  # ln(negative_sampling_rate) included
    negative_sampling_rate: float  # share of the negatives kept in the data
    data: str  # source of the rows
    rows: int  # for the fit
    judged_rows: int  # of other users, for the figures below
    ece_before: float
    ece_after: float
    logloss_before: float
    logloss_after: float


class Largest(_Frozen):
    """Largest absolute number of each input of the ranker in the gate's requests: beyond it the
    error bound is unknown."""

    vector: float
    row: float
    history_keys: float
    history_values: float
    history_rows: float
    user: float  # 0 without users
    user_row: float


class QuantisationGate(_Frozen):
    """Differences of int8 or bf16 from float32 on held-out data, and whether it passed."""

    passed: bool
    forced: bool  # published although it did not pass
    data: str  # source of the rows
    rows: int  # with a label
    scored: int  # candidates: some lists are padded with items of the catalogue
    delta_auc: float  # absolute
    delta_logloss: float  # int8 or bf16 − fp32
    max_abs_delta_p: float
    mean_abs_delta_p: float
    kendall_tau: float  # of each user's list, mean over users
    users: int  # with at least two candidates
    logit_error_bound: float  # worst |Δlogit|
    better_half_logit_error: float | None = None  # in the better half of its list: for top-k
    largest: Largest | None = None  # None: of a bundle that did not note it
    golden_logit_error: float  # worst on the golden requests, on the building machine

    @property
    def top_k_bound(self) -> float:
        """Error bound of exact top-k; older bundles recorded only that of whole lists."""
        if self.better_half_logit_error is None:
            return self.logit_error_bound
        return self.better_half_logit_error


class MultiplyAdds(_Frozen):
    """Dense multiply-adds of the graphs' matrix products."""

    history_length: int  # for ``candidate`` and ``published_candidate``
    candidate: int
    published_candidate: int  # one candidate through the network as published
    item: int  # once per item and model version
    history_item: int  # once per history item and request
    user: int = 0  # once per request: user and request features

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit ``user`` where there is none: earlier releases reject it."""
        content: dict[str, Any] = serialise(self)
        if not self.user:
            del content["user"]
        return content


class ContentOrigin(_Frozen):
    """Encoder and map of the vectors that the network was trained with."""

    feature: str  # dense item feature
    digest: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    given: bool = False  # given vectors are of the same space, and serve as well

    @property
    def wanted(self) -> Wanted:
        """As stores are asked for it."""
        return Wanted(Origin(self.feature, self.digest), self.given)


def dense_items(schema: FeatureSchema) -> list[str]:
    """Names of the item features that may have contents."""
    return [feature.name for feature in schema.item if isinstance(feature, Dense)]


def no_content(feature: str) -> str:
    """Describe a content of a feature that cannot have one."""
    return f"content: {feature} is no dense item feature of the schema"


class Manifest(_Frozen):
    format: int
    version: Version
    created: AwareDatetime  # UTC; orders versions
    feature_schema: FeatureSchema
    sizes: NetworkSizes
    parameters: int
    training: Training
    multiply_adds: MultiplyAdds
    parity: Parity
    calibration: Calibration | None = None
    quantisation: QuantisationGate | None = None  # of int8
    bf16: QuantisationGate | None = None  # of the ranker in bfloat16
    content: ContentOrigin | None = None  # None: any vector will do
    files: dict[FileName, FileRecord]

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit ``bf16`` and ``content`` where there are none: earlier releases reject them."""
        content: dict[str, Any] = serialise(self)
        for name in ("bf16", "content"):
            if content[name] is None:
                del content[name]
        return content

    @model_validator(mode="after")
    def _has_its_content(self) -> Manifest:
        content = self.content
        if content is not None and content.feature not in dense_items(self.feature_schema):
            raise ValueError(no_content(content.feature))
        return self

    def gate(self, precision: str) -> QuantisationGate | None:
        """The gate of a reduced precision; None if the bundle was built without it."""
        return {"int8": self.quantisation, "bf16": self.bf16}.get(precision)

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of this bundle's graphs."""
        context = (CONTEXT_TOWER,) if self.feature_schema.context else ()
        user = (USER_TOWER,) if self.feature_schema.user or self.feature_schema.request else ()
        int8 = (INT8,) if self.quantisation else ()
        return (*GRAPHS, *context, *user, *int8)

    @property
    def mapped(self) -> frozenset[str]:
        """Names of the user and request features whose tables are files of their own."""
        features = (*self.feature_schema.user, *self.feature_schema.request)
        return frozenset(f.name for f in features if table_file(f.name) in self.files)


def table_file(feature: str) -> str:
    """The file of a user or request feature's table: float32 (vocabulary, width)."""
    return f"{feature}.table.npy"
