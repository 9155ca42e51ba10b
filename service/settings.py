"""The settings of the service: one frozen object, one field per environment variable.

``QIN_DEADLINE_MS=250`` sets ``deadline_ms``. Units are in the names. The tables in
docs/configuration.md are generated from this file.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "QIN_"
ALONE = "alone"  # as QIN_FLEET: no fleet
Place = Literal["auto", "service", "admin", "off"]
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")  # valid after "Bearer "
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
CALLER = re.compile(r"[A-Za-z0-9._-]{1,64}")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")


class Settings(BaseSettings):
    """Settings from environment variables; an empty one is not set. Defaults are safe."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    bundle: Path = Field(
        default=Path("var/models"),
        description="Bundle to serve, or a folder of bundles, of which the newest is served.",
    )
    store: str = Field(
        default="lmdb://var/store",
        min_length=1,
        description="URL of the feature store: user histories and item features.",
    )
    store_timeout_ms: float = Field(
        default=20,
        gt=0,
        le=60_000,
        description="Time that one request may spend on the store, retries included.",
    )
    store_write_timeout_ms: float = Field(
        default=500,
        gt=0,
        le=60_000,
        description="Time that a write waits for LMDB's write lock; then 503, and nothing is "
        "written. QIN_STORE_TIMEOUT_MS applies if it is longer.",
    )
    item_reread_s: float = Field(
        default=3600,
        ge=0,
        description="Interval at which every item is read again from the store, to find changes "
        "that were not announced; 0: never.",
    )
    on_store_failure: Literal["degrade", "fail"] = Field(
        default="degrade",
        description="degrade: answer from memory with an empty history; fail: answer 503.",
    )
    store_wait_replicas: int = Field(
        default=0,
        ge=0,
        description="Redis replicas that must confirm an event before it is acknowledged.",
    )
    history_ttl_s: int = Field(
        default=90 * 86_400,
        ge=1,
        description="Time after its last append at which a history in Redis expires.",
    )
    idempotency_ttl_s: int = Field(
        default=86_400, ge=1, description="Time for which an event's idempotency key is kept."
    )
    max_events: int = Field(
        default=1000, ge=1, le=100_000, description="Maximum events per request."
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. 0.0.0.0 is all of IPv4, :: all of IPv4 and IPv6.",
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0: any free port."
    )
    writes_on: Place = Field(
        default="auto",
        description="Port that accepts item writes (PUT, PATCH, DELETE): service, admin (with its "
        "token) or off; auto: service on a loopback address, otherwise admin if it has a token, "
        "otherwise off.",
    )
    events_on: Place = Field(
        default="auto", description="Port that accepts clicks (POST /v1/events), likewise."
    )
    api_keys: SecretStr | None = Field(
        default=None,
        description="NAME:KEY, several separated by spaces. If set, every path but the probes and "
        "/docs requires a key; its name appears in log and metrics.",
    )
    allowed_hosts: str | None = Field(
        default=None,
        description="Host names allowed besides the service's own, separated by spaces; *: any. "
        "Checked on a loopback address, elsewhere only if set.",
    )
    cors_origins: str | None = Field(
        default=None,
        description="Origins allowed to call the service from browsers (https://shop.example), "
        "separated by spaces.",
    )

    model_name: str = Field(
        default="qin",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Model name in the Open Inference Protocol (/v2/models/NAME).",
    )

    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Worker processes. They share the item tables; one that exits is replaced.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Engine threads per worker; 0: the number of cores divided by workers.",
    )
    chunk_candidates: int = Field(
        default=128,
        ge=1,
        le=65536,
        description="Maximum candidates scored at a time before another request gets the thread.",
    )
    min_chunk_candidates: int = Field(
        default=64,
        ge=1,
        le=65536,
        description="Minimum size of the pieces in which a list is spread over idle threads, and "
        "size of a long list's turns in float32 while short ones come.",
    )
    engine_niceness: int = Field(
        default=10,
        ge=0,
        le=19,
        description="Niceness added to the process's own for engine threads; higher favours the "
        "event loop.",
    )
    target_ms: float = Field(
        default=50,
        gt=0,
        le=600_000,
        description="p99 target of short requests; a request forecast to exceed it gets 429.",
    )
    precision: Literal["fp32", "int8", "bf16", "auto"] = Field(
        default="fp32",
        description="auto: the fastest of those that the bundle has and passed the gate of, "
        "measured once per machine and bundle; fp32 unless another is faster by 10%.",
    )
    provider: Literal["cpu", "cuda", "openvino", "auto"] = Field(
        default="cpu",
        description="What runs the ranker; auto: a usable GPU, else the CPU (see /readyz). "
        "openvino requires the extra openvino.",
    )
    top_k_recheck: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of int8 and bf16 top-k answers that are verified by a full pass.",
    )
    max_candidates: int = Field(
        default=5000, ge=1, le=100_000, description="Maximum candidates per request."
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, description="Maximum request body; larger ones get 413."
    )
    unknown_features: Literal["refuse", "ignore"] = Field(
        default="refuse",
        description="Request features that no version has that is or was loaded. refuse: 422; "
        "ignore: left out, and named in the answer's `ignored`.",
    )
    deadline_ms: float = Field(
        default=1000, gt=0, le=600_000, description="Deadline of a request without X-Deadline-Ms."
    )
    max_deadline_ms: float = Field(
        default=10_000,
        gt=0,
        le=600_000,
        description="Maximum X-Deadline-Ms; higher values get 400.",
    )
    encoder: Path | None = Field(
        default=None,
        description="Encoder bundle (`python -m text build`), or a folder of them: each version "
        "comes with the one that it was trained with. If set, texts are encoded at POST "
        "/v1/embeddings and, if it has a map, in writes of items and candidates. Requires the "
        "extra text.",
    )
    encoder_name: str = Field(
        default="qin-text",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name of the encoder in requests (`model`); its version is taken, too.",
    )
    encoder_threads: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Threads per worker that encode texts; they yield to all other work.",
    )
    encoder_cache_mb: int = Field(
        default=64,
        ge=0,
        le=1_048_576,
        description="Memory per worker for vectors of recent texts; 0: none are kept.",
    )
    encoder_deadline_ms: float = Field(
        default=30_000,
        gt=0,
        le=600_000,
        description="Deadline of a request for vectors without X-Deadline-Ms, which may be as "
        "high, or up to QIN_MAX_DEADLINE_MS if that is higher.",
    )
    max_embeddings_body_bytes: int = Field(
        default=2_097_152,
        ge=1024,
        description="Maximum body of POST /v1/embeddings; larger ones get 413.",
    )

    max_table_items: int = Field(
        default=2_000_000,
        ge=0,
        description="Maximum items in the item table; others are fetched by each request.",
    )
    content_share: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Of a model that names the encoder of its contents: the share of items that "
        "must have one of it, or the model is not loaded.",
    )
    table_folder: Path | None = Field(
        default=None,
        description="Folder of item tables shared by the processes of this machine, best in memory "
        "(/dev/shm/qin); by default a service of one process has its tables in memory of its own, "
        "and one of several a folder below QIN_PRIVATE.",
    )

    model_policy: str = Field(
        default="newest",
        pattern=r"^(newest|manual|pin:[A-Za-z0-9][A-Za-z0-9._-]{0,63})$",
        description="newest: load and activate each new version; manual: only by command; "
        "pin:VERSION: serve this version only.",
    )
    follow_every_s: float = Field(
        default=5,
        gt=0,
        description="Interval at which the models folder is checked for new versions.",
    )
    private: Path = Field(
        default=Path("var/private"),
        description="Folder for checked copies of bundles and for state that survives restarts.",
    )
    public_key: Path | None = Field(
        default=None,
        description="PEM file of Ed25519 public keys; if set, bundles must be signed by one.",
    )
    max_bundle_bytes: int = Field(
        default=16 * 2**30, ge=1, description="Maximum total size of a bundle's files."
    )
    inspection_s: int = Field(
        default=120,
        ge=1,
        description="Processor time limit of the sandbox process that checks a new bundle.",
    )
    inspection_memory_mb: int = Field(
        default=4096,
        ge=512,
        description="Memory limit of the sandbox, in addition to three times the bundle's size.",
    )
    fill_stall_s: float = Field(
        default=120,
        gt=0,
        description="Longest time without progress of the process that fills an item table; then "
        "it is ended, and the load fails.",
    )
    max_loaded_versions: int = Field(
        default=4, ge=2, le=64, description="Maximum versions in memory."
    )
    keep_previous: bool = Field(
        default=True, description="Keep the previous version in memory for an immediate rollback."
    )
    rollback_window_s: float = Field(
        default=300,
        ge=0,
        description="Time after activation in which a bad version is rolled back; 0: never.",
    )
    rollback_error_rate: float = Field(
        default=0.01, ge=0, le=1, description="Maximum share of failed answers in that time."
    )
    rollback_p99_ratio: float = Field(
        default=3.0,
        ge=0,
        description="Maximum ratio of its p99 to that of the previous version; 0: not checked.",
    )
    fleet: str = Field(
        default="default",
        pattern=r"^[a-z0-9-]{0,32}$",
        description="Services with the same store and fleet serve the same version; alone: this "
        "one follows no others.",
    )

    admin_host: str = Field(
        default="127.0.0.1",
        description="Address of the admin API; other than loopback requires a token.",
    )
    admin_port: int = Field(
        default=8001, ge=0, le=65535, description="Port of the admin API; 0: any free port."
    )
    admin_token: SecretStr | None = Field(
        default=None,
        description="TOKEN, or several as NAME:TOKEN separated by spaces; names appear in the log.",
    )

    console: bool = Field(
        default=True, description="Pages for a browser at the admin port: /console."
    )
    console_loadtest: bool = Field(
        default=False,
        description="Let the console start load tests against this service (the page Load).",
    )
    console_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Key that signs the console's sessions; by default random at each start.",
    )
    console_session_s: int = Field(
        default=28_800, ge=1, description="Time after which a console's session ends."
    )
    console_streams: int = Field(
        default=64, ge=1, description="Maximum live views of the console per process; more get 429."
    )

    max_header_bytes: int = Field(
        default=16_384,
        ge=1024,
        le=262_144,
        description="Maximum bytes of request line and headers; more get 431.",
    )
    max_headers: int = Field(
        default=100, ge=10, le=10_000, description="Maximum headers of a request; more get 431."
    )
    headers_timeout_ms: float = Field(
        default=3500,
        gt=0,
        description="Timeout for a request's headers, from connecting or its first byte; then 408.",
    )
    body_timeout_ms: float = Field(
        default=3500, gt=0, description="Timeout for a request's body after its headers; then 408."
    )
    answer_timeout_ms: float = Field(
        default=5000, gt=0, description="Timeout for a client to read its answer."
    )
    keep_alive_s: int = Field(default=75, ge=1, description="Timeout of idle connections.")
    max_idle_connections: int = Field(
        default=2000, ge=1, description="Maximum idle connections; beyond it the oldest is closed."
    )
    max_receiving_connections: int = Field(
        default=1000,
        ge=1,
        description="Maximum connections sending headers, and as many sending bodies; beyond it "
        "the oldest is closed.",
    )
    max_receiving_bytes: int = Field(
        default=64 * 2**20,
        ge=0,
        description="Maximum bytes of incomplete bodies in memory per port (at least one body); "
        "beyond it the oldest of the larger ones gets 429.",
    )
    max_in_flight_connections: int = Field(
        default=1000, ge=1, description="Maximum concurrent requests; more get 429."
    )
    drain_notice_s: float = Field(
        default=3,
        ge=0,
        description="Time after SIGTERM in which /readyz answers 503 and requests are served, so "
        "that load balancers notice.",
    )
    shutdown_grace_s: float = Field(
        default=9, ge=0, description="Maximum time of a shutdown, QIN_DRAIN_NOTICE_S included."
    )

    log_format: Literal["auto", "json", "pretty"] = Field(
        default="auto", description="auto: pretty in a terminal, otherwise JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum severity."
    )
    log_slow_ms: float = Field(
        default=250, ge=0, description="Requests slower than this are logged with their stages."
    )
    log_sample: float = Field(
        default=0.0, ge=0, le=1, description="Share of other requests that are logged."
    )
    log_users: Literal["hashed", "plain"] = Field(
        default="hashed", description="Form of user ids in the log."
    )
    log_user_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Key of hashed ids; by default random in each process.",
    )
    trace_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+/\S+$",
        description="OTLP/HTTP endpoint for OpenTelemetry spans (http://collector:4318/v1/traces); "
        "requires the extra tracing.",
    )
    trace_sample: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of requests traced if the caller's traceparent does not decide.",
    )
    metrics_on: Literal["service", "admin"] = Field(
        default="service", description="Port of GET /metrics and /v2/models/…/stats."
    )

    @property
    def pinned_version(self) -> str | None:
        kind, _, version = self.model_policy.partition(":")
        return version if kind == "pin" else None

    @field_validator("fleet")
    @classmethod
    def _fleet_of_none(cls, name: str) -> str:
        """Make the fleet empty if there is none."""
        return "" if name == ALONE else name

    @model_validator(mode="after")
    def _admin_is_safe(self) -> Settings:
        tokens = admin_tokens(self.admin_token)
        if not tokens and not is_loopback(self.admin_host):
            raise ValueError(
                f"{PREFIX}ADMIN_TOKEN: required, because {PREFIX}ADMIN_HOST {self.admin_host} is "
                "reachable from other machines"
            )
        return self

    @model_validator(mode="after")
    def _tracing_is_installed(self) -> Settings:
        if self.trace_url and find_spec("opentelemetry.exporter") is None:
            raise ValueError(
                f"{PREFIX}TRACE_URL: requires the extra tracing: pip install 'qin-serving[tracing]'"
            )
        return self

    @model_validator(mode="after")
    def _precision_has_a_provider(self) -> Settings:
        if self.precision == "bf16" and self.provider not in ("openvino", "auto"):
            raise ValueError(f"{PREFIX}PRECISION: bf16 requires {PREFIX}PROVIDER=openvino or auto")
        if self.runs_on_openvino and find_spec("onnxruntime_ep_openvino") is None:
            raise ValueError(
                f"{PREFIX}PROVIDER: openvino requires the extra openvino: "
                "pip install 'qin-serving[openvino]'"
            )
        return self

    @model_validator(mode="after")
    def _encoder_is_installed(self) -> Settings:
        if self.encoder is not None and find_spec("tokenizers") is None:
            raise ValueError(
                f"{PREFIX}ENCODER: requires the extra text: pip install 'qin-serving[text]'"
            )
        return self

    @model_validator(mode="after")
    def _notice_is_within_grace(self) -> Settings:
        if self.drain_notice_s > self.shutdown_grace_s:
            raise ValueError(
                f"{PREFIX}DRAIN_NOTICE_S: {self.drain_notice_s:g} exceeds "
                f"{PREFIX}SHUTDOWN_GRACE_S, {self.shutdown_grace_s:g}"
            )
        return self

    @model_validator(mode="after")
    def _workers_agree(self) -> Settings:
        if self.workers > 1 and not self.fleet:
            raise ValueError(
                f"{PREFIX}FLEET: several workers need one, to serve the same version; not {ALONE}"
            )
        return self

    @model_validator(mode="after")
    def _access_makes_sense(self) -> Settings:
        host_names(self.allowed_hosts), origins(self.cors_origins)
        admin = {token for _, token in admin_tokens(self.admin_token)}
        if any(key in admin for _, key in api_keys(self.api_keys)):
            raise ValueError(f"{PREFIX}API_KEYS: a key must not be in {PREFIX}ADMIN_TOKEN")
        return self

    @property
    def runs_on_openvino(self) -> bool:
        """Whether OpenVINO is required; with provider=auto, bf16 decides for it."""
        return self.provider == "openvino" or (self.provider, self.precision) == ("auto", "bf16")

    @property
    def times_modes(self) -> bool:
        """Whether the mode of each bundle is chosen by measurement."""
        return self.precision == "auto" and self.provider != "cuda"

    @property
    def writes_at(self) -> Place:
        """Port of item writes, with auto resolved."""
        return self._placed(self.writes_on)

    @property
    def events_at(self) -> Place:
        """Port of events, with auto resolved."""
        return self._placed(self.events_on)

    def _placed(self, place: Place) -> Place:
        if place != "auto":
            return place
        if is_loopback(self.host):
            return "service"
        return "admin" if admin_tokens(self.admin_token) else "off"

    @property
    def largest_body_bytes(self) -> int:
        """Of any route."""
        if self.encoder is None:
            return self.max_body_bytes
        return max(self.max_body_bytes, self.max_embeddings_body_bytes)

    @property
    def engine_threads(self) -> int:
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)


def admin_tokens(given: SecretStr | None) -> list[tuple[str, str]]:
    """Pairs of name and token. ValueError for an invalid token."""
    found = []
    for entry in given.get_secret_value().split() if given else ():
        name, _, token = entry.rpartition(":")
        found.append((name or "admin", _checked("ADMIN_TOKEN", token)))
    return found


def api_keys(given: SecretStr | None) -> list[tuple[str, str]]:
    """Pairs of name and key; a name may have several. ValueError does not show keys."""
    found: dict[str, str] = {}
    for entry in given.get_secret_value().split() if given else ():
        name, _, key = entry.rpartition(":")
        if not CALLER.fullmatch(name):
            raise ValueError(
                f"{PREFIX}API_KEYS: each is NAME:KEY, the name 1 to 64 of A-Z a-z 0-9 . _ -"
            )
        if found.setdefault(_checked("API_KEYS", key), name) != name:
            raise ValueError(f"{PREFIX}API_KEYS: {found[key]} and {name} have the same key")
    return [(name, key) for key, name in found.items()]


def _checked(variable: str, token: str) -> str:
    if not TOKEN.fullmatch(token):
        raise ValueError(
            f"{PREFIX}{variable}: 16 or more of the characters A-Z a-z 0-9 . _ ~ + / = -"
        )
    return token


def host_names(given: str | None) -> frozenset[str]:
    """Names as ``host_of`` returns them, or *. ValueError names the invalid entry."""
    found = set()
    for entry in (given or "").split():
        name = "*" if entry == "*" else host_of(entry)
        if name is None or re.search(r":\d*$", entry):
            raise ValueError(
                f"{PREFIX}ALLOWED_HOSTS: {entry!r} must be like scores.example or [fd00::7], "
                "without scheme and port"
            )
        found.add(name)
    return frozenset(found)


def host_of(header: str) -> str | None:
    """The name or address in a Host header, in canonical form; None if there is none."""
    found = HOST.fullmatch(header.lower())
    if not found:
        return None
    name = found[1].removesuffix(".")
    if name.startswith("["):
        return canonical_address(name[1:-1])
    return canonical_address(name) or name or None


def origins(given: str | None) -> frozenset[str]:
    """Origins as browsers send them. ValueError names the invalid entry."""
    return frozenset(_origin(entry) for entry in (given or "").split())


def _origin(entry: str) -> str:
    scheme, _, authority = entry.lower().removesuffix("/").partition("://")
    if scheme not in DEFAULT_PORTS or host_of(authority) is None:
        raise ValueError(
            f"{PREFIX}CORS_ORIGINS: {entry!r} must be like https://shop.example or "
            "http://127.0.0.1:3000"
        )
    return f"{scheme}://{authority.removesuffix(DEFAULT_PORTS[scheme])}"


def canonical_address(text: str) -> str | None:
    """An IP address in canonical form, IPv4-mapped IPv6 as IPv4; otherwise None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def reached_at(host: str) -> str:
    """Return the address at which this machine reaches a listener's: of a wildcard, loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — only compared


def is_loopback(host: str) -> bool:
    """Whether ``host``, an address or a name, is reachable from this machine only."""
    if host == "localhost":
        return True
    address = canonical_address(host)
    if address is not None:
        return ipaddress.ip_address(address).is_loopback
    return _resolves_to_loopback(host)


@lru_cache(maxsize=16)  # resolved once; ``listener.bind`` refuses another result
def _resolves_to_loopback(name: str) -> bool:
    try:
        found = {str(at[4][0]) for at in socket.getaddrinfo(name, 0)} if name else set()
    except (OSError, UnicodeError):
        return False  # binding will fail
    return bool(found) and all(is_loopback(address) for address in found)


def unknown_variables(environment: dict[str, str]) -> list[str]:
    """Variables with the prefix that are not settings: misspelt, or of another release."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    return sorted(v for v in environment if v.startswith(PREFIX) and v.upper() not in known)
