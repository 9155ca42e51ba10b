"""Connections of a store share one TLS context, until a certificate's file changes."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from feature_store.contract import FeatureStore
from feature_store.errors import StoreError
from feature_store.redis.url import RedisUrl, parse
from tests.feature_store.certificates import make
from tests.feature_store.redis_servers import PASSWORD, Server
from tests.feature_store.samples import SHOP, ids
from tests.feature_store.stores import connect

WITHIN_S = 30.0


@pytest.fixture
def authority(tls: tuple[Server, str], tmp_path: Path) -> Path:
    """A copy that a test may replace."""
    server, copy = tls[0], tmp_path / "authority.pem"
    assert server.tls is not None
    copy.write_bytes(server.tls.authority.read_bytes())
    return copy


@pytest.fixture
def url(tls: tuple[Server, str], authority: Path) -> str:
    password = quote(PASSWORD, safe="")
    return f"rediss://:{password}@127.0.0.1:{tls[0].port}/3?ssl_ca_certs={authority}&prefix=t{uuid4().hex}"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """The contexts that are made."""
    contexts, make_one = list[ssl.SSLContext](), ssl.create_default_context

    def watched(*given: Any, **named: Any) -> ssl.SSLContext:
        contexts.append(make_one(*given, **named))
        return contexts[-1]

    monkeypatch.setattr(ssl, "create_default_context", watched)
    return contexts


@pytest.fixture
def another(tmp_path: Path) -> Path:
    """An authority that has not signed the server's certificate."""
    (tmp_path / "another").mkdir()
    return make(tmp_path / "another").authority


def _swap(one: Path, other: Path) -> None:
    was = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(was)


async def _answers(store: FeatureStore) -> bool:
    try:
        await store.items(ids(1))
    except StoreError:
        return False
    return True


async def _until(store: FeatureStore, answers: bool) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await _answers(store) is not answers:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _drop_connections(server: Server) -> None:
    server.client().client_kill_filter(_type="normal", skipme=True)


async def test_a_connection_that_is_opened_again_reads_no_certificates(
    tls: tuple[Server, str], url: str, made: list[ssl.SSLContext]
) -> None:
    store = await connect(url, SHOP, create=True)
    try:
        before = len(made)
        assert before == 1
        _drop_connections(tls[0])
        del made[before:]  # the test's own client made one
        await _until(store, answers=True)
        assert len(made) == before
    finally:
        await store.close()


async def test_a_replaced_authority_holds_from_the_next_connection_on(
    tls: tuple[Server, str], url: str, authority: Path, another: Path
) -> None:
    store = await connect(url, SHOP, create=True)
    try:
        _swap(authority, another)
        _drop_connections(tls[0])
        await _until(store, answers=False)
        _swap(authority, another)
        await _until(store, answers=True)
    finally:
        await store.close()


def _context(url: RedisUrl) -> ssl.SSLContext:
    connection: Any = url.connection(("127.0.0.1", 1))()
    context: ssl.SSLContext = connection.ssl_context.get()
    return context


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path"])
@pytest.mark.parametrize("how", ["written over", "renamed, of equal size and time"])
def test_a_file_that_is_replaced_has_a_new_context(
    tmp_path: Path, authority: Path, option: str, how: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = Path(shutil.copy2(authority, folder / "authority.pem"))
    given = file if option == "ssl_ca_certs" else folder
    url = parse(f"rediss://127.0.0.1?{option}={given}")
    before = _context(url)
    assert _context(url) is before
    if how == "written over":
        file.write_bytes(file.read_bytes())
    else:
        Path(shutil.copy2(file, tmp_path / "new.pem")).rename(file)
    assert _context(url) is not before


def test_servers_of_one_store_share_it_and_stores_do_not(url: str) -> None:
    one, other = parse(url), parse(url)
    contexts = [
        u.connection(("127.0.0.1", port))().ssl_context.get()  # type: ignore[attr-defined]
        for u, port in ((one, 1), (one, 1), (one, 2), (other, 1))
    ]
    assert contexts[0] is contexts[1] is contexts[2]
    assert contexts[3] is not contexts[0]
