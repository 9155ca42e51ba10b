"""One service process: a house, an application, an HTTP server around them, until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import uvicorn
from starlette.types import ASGIApp

from model_export.bundle import Bundle
from service.admin import create_admin
from service.app import create_app
from service.example import show_example
from service.house import House, open_house
from service.logs import logger
from service.settings import Settings, unknown_variables


class Server(uvicorn.Server):
    """uvicorn's server, but a signal ends it as a return, so that what we opened is closed."""

    def __init__(self, config: uvicorn.Config, *, name: str = "service") -> None:
        super().__init__(config)
        self.listening, self._name = asyncio.Event(), name

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logger.info("listening", name=self._name, url=self.url)
        self.listening.set()

    @property
    def url(self) -> str:
        """Where this machine finds it, whatever was asked for: port 0, all addresses."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 — only compared
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's, not one server's: see ``_stopped_by_signals``."""
        yield


async def serve(settings: Settings, example: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. Raises BundleError or StoreError when it cannot begin.

    ``example``: once ready, ask ourselves something and print question and answer.
    """
    for variable in unknown_variables(dict(os.environ)):
        logger.warning("this variable sets nothing", variable=variable)
    with closing(_admin_socket(settings)) as admin_socket:
        async with open_house(settings) as (house, bundle):
            server = Server(_configuration(house, create_app(house)))
            admin = Server(_configuration(house, create_admin(house)), name="admin")
            loading = asyncio.create_task(_load(house, bundle, server, example))
            administering = asyncio.create_task(admin.serve([admin_socket]))
            try:
                with _stopped_by_signals(server, admin):
                    await server.serve()
            finally:
                loading.cancel()
                admin.should_exit = True
                await administering
            if not house.readiness.ready and loading.done() and not loading.cancelled():
                loading.result()  # what it raised ends the process


def _admin_socket(settings: Settings) -> socket.socket:
    """OSError names the setting."""
    host, port = settings.admin_host, settings.admin_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"admin API: {host}:{port}: {error.strerror}; set QIN_ADMIN_PORT (0 picks one)"
        ) from error


@contextmanager
def _stopped_by_signals(*servers: Server) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        for server in servers:
            server.handle_exit(number, None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    yield
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


async def _load(house: House, bundle: Bundle, server: Server, example: bool) -> None:
    """Meanwhile /livez and /readyz answer. Without a version there is nothing to go on for."""
    try:
        await house.load(bundle)
    except BaseException:
        server.should_exit = True
        raise
    if example:
        await server.listening.wait()
        try:
            await show_example(house.store, server.url)
        except Exception:  # serving goes on without it
            logger.exception("the example failed")
    await house.follow()


def _configuration(house: House, app: ASGIApp) -> uvicorn.Config:
    settings = house.settings
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
