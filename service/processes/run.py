"""One serving process: the service's state, its two ports, and an entrance, until told to stop."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from typing import Protocol

from feature_store.errors import StoreError
from feature_store.schema import SchemaError
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from service.application import ServiceState, build_application
from service.cli.example import show_example
from service.items.shared_file import remove_unused
from service.items.table_lock import TableBusy
from service.observability.background import begin, failed
from service.observability.exporter import Worker
from service.observability.logs import logger
from service.processes.signals import StopSignals
from service.server.descriptors import fitted
from service.server.http_server import Ports
from service.server.listener import Door, begin_to_listen, bind, url_of
from service.settings import Settings, api_keys

CANNOT_BEGIN = (BundleError, StoreError, SchemaError, OSError)  # told as such, by ``__main__``


class Entrance(Protocol):
    """Where connections come from, and the word to stop."""

    url: str  # of the public port
    told: asyncio.Event  # to stop

    def open(self, ports: Ports) -> None:
        """Connections may come in."""

    def ready(self) -> None:
        """Requests are answered from now on."""

    def left(self) -> None:
        """A public connection has ended."""

    async def close(self) -> None:
        """Returns when no more connections come: what balancers still send is let in before."""


async def serve(settings: Settings, example: bool = False) -> None:
    """Serve until told to stop by a signal. BundleError, StoreError or OSError: it cannot begin.

    ``example``: once ready, ask ourselves something and print question and answer.
    """
    settings = fitted(settings)
    await asyncio.to_thread(_remove_left, settings)
    with OwnDoors(settings) as entrance:
        await serve_from(entrance, settings, example)


def _remove_left(settings: Settings) -> None:
    """What workers shared that were killed; a process that shares tables removes it by itself."""
    tables = settings.private / "tables"
    if settings.table_folder is None and tables.is_dir():
        with suppress(OSError, TableBusy):
            remove_unused(tables)


async def serve_from(
    entrance: Entrance, settings: Settings, example: bool = False, worker: Worker | None = None
) -> None:
    async with build_application(settings, worker) as (state, bundle):
        ports = Ports(state, entrance.left)
        entrance.open(ports)
        loading = begin("serving", _load(state, bundle, entrance, example), expected=CANNOT_BEGIN)
        told = begin("serving", entrance.told.wait())
        try:
            await asyncio.wait((loading, told), return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                return  # what loading raised ends the process
            async with asyncio.timeout(settings.shutdown_grace_s):
                await _drain(state, ports, entrance)
        except TimeoutError:
            pass
        finally:
            ports.close()
            loading.cancel()
            told.cancel()
            if loading.done() and not loading.cancelled():
                loading.result()
    logger.info("stopped")


async def _drain(state: ServiceState, ports: Ports, entrance: Entrance) -> None:
    """Lose nothing: say that we stop, let in and answer what comes meanwhile, then end."""
    logger.info("draining")
    state.readiness.draining = True
    ports.say_last()
    await entrance.close()
    await ports.finish()


async def _load(state: ServiceState, bundle: Bundle, entrance: Entrance, example: bool) -> None:
    """Meanwhile /livez and /readyz answer. Without a version there is nothing to go on for."""
    await state.load(bundle)
    entrance.ready()
    if example:
        try:
            keys = api_keys(state.settings.api_keys)
            key = keys[0][1] if keys else None
            await show_example(state.store, entrance.url, key)
        except Exception:  # serving goes on without it
            failed("serving", "the example failed")
    await state.follow()
    await asyncio.Event().wait()


class OwnDoors:
    """The entrance of a process that is alone: it listens itself, and has the signals.

    It has its addresses from the start, and listens only when it can answer and drain: a connection
    made before would be lost with a process that is ended meanwhile.
    """

    def __init__(self, settings: Settings) -> None:
        self._notice_s = settings.drain_notice_s
        self._service = bind(settings.host, settings.port, "QIN_PORT")
        try:
            self._admin = bind(settings.admin_host, settings.admin_port, "QIN_ADMIN_PORT")
        except OSError:
            self._service.close()
            raise
        self.url, self.told = url_of(self._service), asyncio.Event()

    def __enter__(self) -> OwnDoors:
        return self

    def __exit__(self, *error: object) -> None:
        with closing(self._service), closing(self._admin):
            pass

    def open(self, ports: Ports) -> None:
        self._signals = StopSignals()
        self.told = self._signals.told
        begin_to_listen(self._service, "QIN_PORT")
        begin_to_listen(self._admin, "QIN_ADMIN_PORT")
        self._doors = [
            Door(self._service, ports.service.enter, ports.make_room),
            Door(self._admin, ports.admin.enter, ports.make_room),
        ]
        for door in self._doors:
            door.open()
        logger.info("listening", url=self.url, admin=url_of(self._admin))

    def ready(self) -> None: ...

    def left(self) -> None: ...

    async def close(self) -> None:
        if not self._signals.hurried:
            await asyncio.sleep(self._notice_s)
        await asyncio.gather(*(door.close() for door in self._doors))
