"""Runs one serving process: the application, its two HTTP servers and a source of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from typing import Protocol

from feature_store.contract import FeatureStore
from feature_store.errors import StoreError
from feature_store.schema import RequestFeature, SchemaError
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from service.api.admin import create_admin
from service.api.app import error_response, public_application, refusals
from service.application import build_application
from service.context import PROBES
from service.items.shared_file import remove_unused
from service.items.table_lock import TableBusy
from service.observability.background import begin, failed
from service.observability.exporter import Worker
from service.observability.logs import logger
from service.processes.signals import ShutdownSignals
from service.server.context import Application
from service.server.descriptors import fitted
from service.server.http_server import HttpServers
from service.server.listener import Listener, bind, start_listening, url_of
from service.settings import Settings, api_keys
from service.state import ServiceState

CANNOT_START = (BundleError, StoreError, SchemaError, OSError)  # reported by ``__main__``
# Shows a request and its answer: given the store, the model's request features, the service's URL,
# an API key, the item feature that texts may stand for, and the console's URL.
Example = Callable[
    [FeatureStore, Sequence[RequestFeature], str, str | None, str | None, str | None],
    Awaitable[None],
]


class ConnectionSource(Protocol):
    """Provides connections and the request to stop."""

    url: str  # of the public port
    admin_url: str
    stop_requested: asyncio.Event

    def open(self, servers: HttpServers) -> None:
        """Start to provide connections."""

    def ready(self) -> None:
        """Called when requests are answered."""

    def closed(self) -> None:
        """Called when a public connection has ended."""

    async def close(self) -> None:
        """Return when no more connections come, after those that load balancers still send."""


async def serve(settings: Settings, example: Example | None = None) -> None:
    """Serve until a signal. BundleError, StoreError, SchemaError or OSError: it cannot start.

    ``example`` is called once, when the service is ready.
    """
    settings = fitted(settings)
    await asyncio.to_thread(_remove_left_tables, settings)
    with ListeningSource(settings) as source:
        await serve_from(source, settings, example)


def _remove_left_tables(settings: Settings) -> None:
    """Remove tables of killed workers; a process that shares tables does so itself."""
    tables = settings.private / "tables"
    if settings.table_folder is None and tables.is_dir():
        with suppress(OSError, TableBusy):
            remove_unused(tables)


async def serve_from(
    source: ConnectionSource,
    settings: Settings,
    example: Example | None = None,
    worker: Worker | None = None,
) -> None:
    async with build_application(settings, worker) as (state, bundle):
        servers = http_servers(state, source.closed)
        source.open(servers)
        loading = begin("serving", _load(state, bundle, source, example), expected=CANNOT_START)
        stop = begin("serving", source.stop_requested.wait())
        try:
            await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                return  # an error of loading ends the process
            async with asyncio.timeout(settings.shutdown_grace_s):
                await _drain(state, servers, source)
        except TimeoutError:
            pass
        finally:
            servers.close()
            loading.cancel()
            stop.cancel()
            if loading.done() and not loading.cancelled():
                loading.result()
    logger.info("stopped")


def http_servers(state: ServiceState, on_leave: Callable[[], None] = lambda: None) -> HttpServers:
    """The servers of the public and the admin port. ``on_leave``: see ``HttpServers``."""
    refuse, respond = refusals(state), error_response(state)
    admin = Application("admin", create_admin(state), refuse, respond, PROBES)
    return HttpServers(public_application(state), admin, state.settings, state.metrics, on_leave)


async def _drain(state: ServiceState, servers: HttpServers, source: ConnectionSource) -> None:
    """Report not ready, answer everything that still arrives, then close."""
    logger.info("draining")
    state.readiness.draining = True
    servers.close_after_answers()
    await source.close()
    await servers.finish()


async def _load(
    state: ServiceState, bundle: Bundle, source: ConnectionSource, example: Example | None
) -> None:
    """Load a model, while /livez and /readyz answer, then follow the models folder. An error ends
    the process."""
    await state.load(bundle)
    source.ready()
    if example is not None:
        try:
            keys = api_keys(state.settings.api_keys)
            asked = state.registry.resolve(None)[0].schema.request
            key = keys[0][1] if keys else None
            texts = _feature_of_texts(state)
            console = f"{source.admin_url}/console" if state.settings.console else None
            await example(state.store, asked, source.url, key, texts, console)
        except Exception:  # serving goes on
            failed("serving", "example request failed")
    await state.follow()
    await asyncio.Event().wait()


def _feature_of_texts(state: ServiceState) -> str | None:
    """The item feature that texts may stand for in a write at the public port; None if none."""
    if state.settings.writes_at != "service":
        return None
    feature = state.feature_of_texts
    return None if feature is None else feature.name


class ListeningSource:
    """Listens itself and handles signals: the source of a process without a supervisor.

    Binds its addresses at the start, but listens only when it can answer and drain: an earlier
    connection would be lost if the process ended meanwhile.
    """

    def __init__(self, settings: Settings) -> None:
        self._notice_s = settings.drain_notice_s
        self._service = bind(settings.host, settings.port, "QIN_PORT")
        try:
            self._admin = bind(settings.admin_host, settings.admin_port, "QIN_ADMIN_PORT")
        except OSError:
            self._service.close()
            raise
        self.url, self.admin_url = url_of(self._service), url_of(self._admin)
        self.stop_requested = asyncio.Event()

    def __enter__(self) -> ListeningSource:
        return self

    def __exit__(self, *error: object) -> None:
        with closing(self._service), closing(self._admin):
            pass

    def open(self, servers: HttpServers) -> None:
        self._signals = ShutdownSignals()
        self.stop_requested = self._signals.requested
        start_listening(self._service, "QIN_PORT")
        start_listening(self._admin, "QIN_ADMIN_PORT")
        self._listeners = [
            Listener(self._service, servers.service.enter, servers.make_room),
            Listener(self._admin, servers.admin.enter, servers.make_room),
        ]
        for listener in self._listeners:
            listener.open()
        logger.info("listening", url=self.url, admin=self.admin_url)

    def ready(self) -> None: ...

    def closed(self) -> None: ...

    async def close(self) -> None:
        if not self._signals.immediate:
            await asyncio.sleep(self._notice_s)
        await asyncio.gather(*(listener.close() for listener in self._listeners))
