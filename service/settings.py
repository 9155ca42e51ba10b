"""Every setting of the service: one frozen object, one field per environment variable.

``QIN_DEADLINE_MS=250`` sets ``deadline_ms``. Units are in the names. The table in
docs/operations.md is this file's, held to it by a test.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "QIN_"


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
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks one.")

    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Engine threads; 0 is one per core this process may use.",
    )
    chunk_candidates: int = Field(
        default=512,
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
        default=10_000, gt=0, le=600_000, description="Longest X-Deadline-Ms taken; more is 422."
    )
    max_table_items: int = Field(
        default=2_000_000,
        ge=0,
        description="Most items kept ready in memory; others are fetched by each request.",
    )

    keep_alive_s: int = Field(
        default=75, ge=1, description="How long an idle connection is kept open."
    )
    shutdown_grace_s: int = Field(
        default=10, ge=0, description="How long a stop waits for answers still being made."
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

    @property
    def engine_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))


def unknown_variables(environment: dict[str, str]) -> list[str]:
    """Variables with our prefix that set nothing: misspelt, or another release's."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    return sorted(v for v in environment if v.startswith(PREFIX) and v.upper() not in known)
