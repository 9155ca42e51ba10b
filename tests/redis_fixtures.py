"""Redis servers that a whole test session shares, and the URL of an empty place on each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.feature_store import redis_servers
from tests.feature_store.redis_servers import ClusterGroup, SentinelGroup, Server

BACKENDS = ("lmdb", "redis", "redis_tls", "redis_sentinel", "redis_cluster")
Temporary = pytest.TempPathFactory


@pytest.fixture(scope="session")
def redis(tmp_path_factory: Temporary) -> Iterator[Server]:
    with redis_servers.standalone(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def tls(tmp_path_factory: Temporary) -> Iterator[tuple[Server, str]]:
    with redis_servers.with_tls(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: Temporary) -> Iterator[SentinelGroup]:
    with redis_servers.sentinel_group(tmp_path_factory.mktemp("sentinel")) as group:
        group.notice_within(redis_servers.PATIENT_MS)
        yield group


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: Temporary) -> Iterator[ClusterGroup]:
    with redis_servers.cluster_group(tmp_path_factory.mktemp("cluster")) as group:
        group.notice_within(redis_servers.PATIENT_MS)
        yield group


@pytest.fixture
def redis_url(redis: Server) -> str:
    return f"redis://127.0.0.1:{redis.port}?prefix=t{uuid4().hex}"


@pytest.fixture
def redis_tls_url(tls: tuple[Server, str]) -> str:
    server, query = tls
    password = quote(redis_servers.PASSWORD, safe="")
    return f"rediss://:{password}@127.0.0.1:{server.port}/3?{query}&prefix=t{uuid4().hex}"


@pytest.fixture
def redis_sentinel_url(sentinels: SentinelGroup) -> str:
    return f"{sentinels.url}?prefix=t{uuid4().hex}"


@pytest.fixture
def redis_cluster_url(cluster: ClusterGroup) -> str:
    return f"{cluster.url}?prefix=t{uuid4().hex}"


@pytest.fixture(params=BACKENDS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty place of its own on each backend in turn."""
    if request.param == "lmdb":
        return f"lmdb://{tmp_path / 'store'}"
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
