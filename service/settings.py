"""Every setting of the service: one frozen object, one field per environment variable.

``QIN_DEADLINE_MS=250`` sets ``deadline_ms``. Units are in the names. The tables in
docs/configuration.md are made from this file.
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

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "QIN_"
Place = Literal["auto", "service", "admin", "off"]
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")  # what a header can hold after "Bearer "
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
CALLER = re.compile(r"[A-Za-z0-9._-]{1,64}")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")


class Settings(BaseSettings):
    """What an operator may decide. Defaults are safe."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bundle: Path = Field(
        default=Path("var/models"),
        description="The bundle to serve, or a folder of bundles: then the newest.",
    )
    store: str = Field(
        default="lmdb://var/store", description="Where user histories and item features are."
    )
    store_timeout_ms: float = Field(
        default=20,
        gt=0,
        le=60_000,
        description="What one request may spend on the store: connecting, waiting, reading, trying "
        "again.",
    )
    store_write_timeout_ms: float = Field(
        default=500,
        gt=0,
        le=60_000,
        description="How long a write waits for its turn in LMDB, whose lock another process may "
        "hold; then 503, and it is not made. QIN_STORE_TIMEOUT_MS counts where it is longer.",
    )
    item_reread_s: float = Field(
        default=3600,
        ge=0,
        description="Every item is read from the store again within so long, so that a change that "
        "was not announced is seen; 0: never.",
    )
    on_store_failure: Literal["degrade", "fail"] = Field(
        default="degrade",
        description="degrade: answer from what is in memory, with an empty history; fail: 503.",
    )
    store_wait_replicas: int = Field(
        default=0,
        ge=0,
        description="Redis replicas that must have an event before it is acknowledged.",
    )
    history_ttl_s: int = Field(
        default=90 * 86_400,
        ge=1,
        description="A Redis history to which nothing was appended for so long is forgotten.",
    )
    idempotency_ttl_s: int = Field(
        default=86_400, ge=1, description="How long an event's key is remembered."
    )
    max_events: int = Field(
        default=1000, ge=1, le=100_000, description="Most events one request may hold."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks one.")
    writes_on: Place = Field(
        default="auto",
        description="Where items are written (PUT, PATCH, DELETE): service, admin (behind its "
        "token), off; auto: service on a loopback address, elsewhere admin with a token and off "
        "without one.",
    )
    events_on: Place = Field(
        default="auto", description="Where clicks are taken (POST /v1/events), likewise."
    )
    api_keys: SecretStr | None = Field(
        default=None,
        description="NAME:KEY, several separated by spaces; then all but the probes and the page "
        "/docs ask for one. The name goes into log and metrics.",
    )
    allowed_hosts: str | None = Field(
        default=None,
        description="Names that a Host header may have beside the service's own, separated by "
        "spaces; *: any. Looked at on a loopback address, elsewhere only where this is set.",
    )
    cors_origins: str | None = Field(
        default=None,
        description="Origins (https://shop.example) whose pages may call the service, separated by "
        "spaces.",
    )

    model_name: str = Field(
        default="qin",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="What the model is called in the Open Inference Protocol (/v2/models/NAME).",
    )

    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that answer. They share the item tables, and one that ends is "
        "replaced.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Engine threads of each process; 0 shares the cores there are among them.",
    )
    chunk_candidates: int = Field(
        default=128,
        ge=1,
        le=65536,
        description="Most candidates scored in one turn, before another request gets the thread.",
    )
    min_chunk_candidates: int = Field(
        default=64,
        ge=1,
        le=65536,
        description="A list is spread over idle threads down to pieces of this size.",
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
        description="Under pressure: what the slowest 1% of short requests may take; what would "
        "be later is refused.",
    )
    precision: Literal["fp32", "int8", "auto"] = Field(
        default="fp32",
        description="auto: int8 where the bundle has it, its gate is passed and this processor has "
        "VNNI.",
    )
    provider: Literal["cpu", "cuda", "auto"] = Field(
        default="cpu",
        description="Where the ranker runs; auto: on the GPU if it can, and /readyz says if not.",
    )
    top_k_recheck: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the top-k answers made with int8 that are made again in full.",
    )
    max_candidates: int = Field(
        default=5000, ge=1, le=100_000, description="Longest list one request may ask for."
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, description="Largest request body; beyond it 413."
    )
    deadline_ms: float = Field(
        default=1000, gt=0, le=600_000, description="Time for one answer when none is asked for."
    )
    max_deadline_ms: float = Field(
        default=10_000, gt=0, le=600_000, description="Longest X-Deadline-Ms taken; more is 400."
    )
    max_table_items: int = Field(
        default=2_000_000,
        ge=0,
        description="Most items kept ready in memory; others are fetched by each request.",
    )
    table_folder: Path | None = Field(
        default=None,
        description="Folder, best in memory (/dev/shm/qin), of item tables that the processes of "
        "this machine share; without it each has its own.",
    )

    model_policy: str = Field(
        default="newest",
        pattern=r"^(newest|manual|pin:[A-Za-z0-9][A-Za-z0-9._-]{0,63})$",
        description="newest: what is published is loaded and switched to; manual: only when told; "
        "pin:VERSION: that one and no other.",
    )
    follow_every_s: float = Field(
        default=5, gt=0, description="How often the folder is looked at for something newer."
    )
    private: Path = Field(
        default=Path("var/private"),
        description="Where bundles are copied to before they are checked and served; and what is "
        "remembered of the active one.",
    )
    public_key: Path | None = Field(
        default=None,
        description="PEM file of Ed25519 public keys; then only bundles signed by one are served.",
    )
    max_bundle_bytes: int = Field(
        default=16 * 2**30, ge=1, description="Largest bundle taken in, all its files together."
    )
    inspection_s: int = Field(
        default=120,
        ge=1,
        description="Processor time a new bundle gets, in a child process, to prove itself.",
    )
    inspection_memory_mb: int = Field(
        default=4096,
        ge=512,
        description="Memory it gets there, beside three times its own size.",
    )
    max_loaded_versions: int = Field(
        default=4, ge=2, le=64, description="Versions in memory at a time."
    )
    keep_previous: bool = Field(
        default=True,
        description="Keep the version before in memory, so that a rollback is immediate.",
    )
    rollback_window_s: float = Field(
        default=300,
        ge=0,
        description="How long a new version is watched, and taken back if it is bad; 0: never.",
    )
    rollback_error_rate: float = Field(
        default=0.01, ge=0, le=1, description="Share of its answers that may fail meanwhile."
    )
    rollback_p99_ratio: float = Field(
        default=3.0,
        ge=0,
        description="How much slower than the one before its p99 may be; 0: not looked at.",
    )
    fleet: str = Field(
        default="default",
        pattern=r"^[a-z0-9-]{0,32}$",
        description="Processes of one store and fleet serve the same version; empty: alone.",
    )

    admin_host: str = Field(
        default="127.0.0.1", description="Address of the admin API; not loopback takes a token."
    )
    admin_port: int = Field(
        default=8001, ge=0, le=65535, description="Port of the admin API; 0 picks one."
    )
    admin_token: SecretStr | None = Field(
        default=None,
        description="TOKEN, or several as NAME:TOKEN separated by spaces; the name goes into the "
        "log.",
    )

    max_header_bytes: int = Field(
        default=16_384,
        ge=1024,
        le=262_144,
        description="Most bytes of a request line and headers together; beyond it 431.",
    )
    max_headers: int = Field(
        default=100, ge=10, le=10_000, description="Most headers of a request; beyond it 431."
    )
    headers_timeout_ms: float = Field(
        default=3500,
        gt=0,
        description="Time for a request's headers, from connecting or from its first byte; then "
        "408.",
    )
    body_timeout_ms: float = Field(
        default=3500, gt=0, description="Time for a request's body after its headers; then 408."
    )
    answer_timeout_ms: float = Field(
        default=5000, gt=0, description="Time a client has to take its answer."
    )
    keep_alive_s: int = Field(
        default=75, ge=1, description="How long an idle connection is kept open."
    )
    max_idle_connections: int = Field(
        default=2000,
        ge=1,
        description="Most connections between two requests; the one longest idle is closed.",
    )
    max_receiving_connections: int = Field(
        default=1000,
        ge=1,
        description="Most connections that send headers, and as many that send bodies; the slowest "
        "is closed.",
    )
    max_receiving_bytes: int = Field(
        default=64 * 2**20,
        ge=0,
        description="Most bytes of unfinished bodies in memory, of all connections of a port (one "
        "body is always taken); beyond it, of those that hold much, the slowest gets 429.",
    )
    max_in_flight_connections: int = Field(
        default=1000, ge=1, description="Most connections that wait for an answer; beyond it 429."
    )
    drain_notice_s: float = Field(
        default=3,
        ge=0,
        description="How long a SIGTERM is answered with 503 at /readyz and with service as usual, "
        "so that balancers notice.",
    )
    shutdown_grace_s: float = Field(
        default=9, ge=0, description="How long a stop may take, its notice included."
    )

    log_format: Literal["auto", "json", "pretty"] = Field(
        default="auto", description="auto is pretty in a terminal and JSON otherwise."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe line that is written."
    )
    log_slow_ms: float = Field(
        default=250, ge=0, description="Requests slower than this are logged, with their stages."
    )
    log_sample: float = Field(
        default=0.0, ge=0, le=1, description="Share of ordinary requests that are logged too."
    )
    log_users: Literal["hashed", "plain"] = Field(
        default="hashed", description="How a user's id appears in the log."
    )
    log_user_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Key of hashed ids; without it each process makes one of its own.",
    )
    trace_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+/\S+$",
        description="Where OpenTelemetry spans are sent by OTLP over HTTP "
        "(http://collector:4318/v1/traces); takes the extra tracing.",
    )
    trace_sample: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of requests traced where the caller's traceparent does not decide.",
    )
    metrics_on: Literal["service", "admin"] = Field(
        default="service",
        description="At whose port GET /metrics and /v2/models/…/stats are.",
    )

    @property
    def pinned_version(self) -> str | None:
        kind, _, version = self.model_policy.partition(":")
        return version if kind == "pin" else None

    @model_validator(mode="after")
    def _admin_is_safe(self) -> Settings:
        tokens = admin_tokens(self.admin_token)
        if not tokens and not is_loopback(self.admin_host):
            raise ValueError(
                f"{PREFIX}ADMIN_TOKEN: needed, because {PREFIX}ADMIN_HOST {self.admin_host} can "
                "be reached from other machines"
            )
        return self

    @model_validator(mode="after")
    def _tracing_is_installed(self) -> Settings:
        if self.trace_url and find_spec("opentelemetry.exporter") is None:
            raise ValueError(
                f"{PREFIX}TRACE_URL: takes the extra tracing: pip install 'qin-serving[tracing]'"
            )
        return self

    @model_validator(mode="after")
    def _notice_is_within_grace(self) -> Settings:
        if self.drain_notice_s > self.shutdown_grace_s:
            raise ValueError(
                f"{PREFIX}DRAIN_NOTICE_S {self.drain_notice_s:g}: at most "
                f"{PREFIX}SHUTDOWN_GRACE_S, {self.shutdown_grace_s:g}"
            )
        return self

    @model_validator(mode="after")
    def _workers_agree(self) -> Settings:
        if self.workers > 1 and not self.fleet:
            raise ValueError(
                f"{PREFIX}FLEET: needed with several workers, which serve the same version by it"
            )
        return self

    @model_validator(mode="after")
    def _access_makes_sense(self) -> Settings:
        host_names(self.allowed_hosts), origins(self.cors_origins)
        admin = {token for _, token in admin_tokens(self.admin_token)}
        if any(key in admin for _, key in api_keys(self.api_keys)):
            raise ValueError(f"{PREFIX}API_KEYS: a key that is also in {PREFIX}ADMIN_TOKEN")
        return self

    @property
    def writes_at(self) -> Place:
        """Where items are written, once auto is decided."""
        return self._placed(self.writes_on)

    @property
    def events_at(self) -> Place:
        """Where clicks are taken, once auto is decided."""
        return self._placed(self.events_on)

    def _placed(self, place: Place) -> Place:
        if place != "auto":
            return place
        if is_loopback(self.host):
            return "service"
        return "admin" if admin_tokens(self.admin_token) else "off"

    @property
    def engine_threads(self) -> int:
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)


def admin_tokens(given: SecretStr | None) -> list[tuple[str, str]]:
    """(name, token) of each. ValueError for one that is too short or holds what a header cannot."""
    found = []
    for entry in given.get_secret_value().split() if given else ():
        name, _, token = entry.rpartition(":")
        found.append((name or "admin", _checked("ADMIN_TOKEN", token)))
    return found


def api_keys(given: SecretStr | None) -> list[tuple[str, str]]:
    """(name, key) of each; a name may have several. ValueError repeats no key."""
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
    """As ``host_of`` has them, or *. ValueError names the entry at fault."""
    found = set()
    for entry in (given or "").split():
        name = "*" if entry == "*" else host_of(entry)
        if name is None or re.search(r":\d*$", entry):
            raise ValueError(
                f"{PREFIX}ALLOWED_HOSTS: {entry!r} should look like scores.example or [fd00::7], "
                "without scheme and port"
            )
        found.add(name)
    return frozenset(found)


def host_of(header: str) -> str | None:
    """The name or address in a Host header, in its one form; None where there is none."""
    found = HOST.fullmatch(header.lower())
    if not found:
        return None
    name = found[1].removesuffix(".")
    if name.startswith("["):
        return canonical_address(name[1:-1])
    return canonical_address(name) or name or None


def origins(given: str | None) -> frozenset[str]:
    """As browsers write them. ValueError names the entry at fault."""
    return frozenset(_origin(entry) for entry in (given or "").split())


def _origin(entry: str) -> str:
    scheme, _, authority = entry.lower().removesuffix("/").partition("://")
    if scheme not in DEFAULT_PORTS or host_of(authority) is None:
        raise ValueError(
            f"{PREFIX}CORS_ORIGINS: {entry!r} should look like https://shop.example or "
            "http://127.0.0.1:3000"
        )
    return f"{scheme}://{authority.removesuffix(DEFAULT_PORTS[scheme])}"


def canonical_address(text: str) -> str | None:
    """An IP address in its one form, IPv4 in IPv6 as IPv4; None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``, an address or a name."""
    if host == "localhost":
        return True
    address = canonical_address(host)
    if address is not None:
        return ipaddress.ip_address(address).is_loopback
    return _resolves_to_loopback(host)


@lru_cache(maxsize=16)  # decided once; ``door.bind`` refuses another outcome
def _resolves_to_loopback(name: str) -> bool:
    try:
        found = {str(at[4][0]) for at in socket.getaddrinfo(name, 0)} if name else set()
    except (OSError, UnicodeError):
        return False  # listening on it will say so
    return bool(found) and all(is_loopback(address) for address in found)


def unknown_variables(environment: dict[str, str]) -> list[str]:
    """Variables with our prefix that set nothing: misspelt, or another release's."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    return sorted(v for v in environment if v.startswith(PREFIX) and v.upper() not in known)
