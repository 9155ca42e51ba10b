"""Real Redis servers on free ports, started by the tests and ended by them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis as client

from tests.feature_store.certificates import Certificates, make
from tests.ports import free_port

STARTS_WITHIN_S = 60.0
PASSWORD = "s3cret/with:odd@signs"
SERVICE = "tests-master"
QUICK_MS = 1000  # to notice a node that is down, where a test ends one
PATIENT_MS = 60_000  # where none does: a busy machine makes slow nodes, not dead ones


def until(true: Callable[[], Any], what: str, within_s: float = STARTS_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(client.RedisError, OSError):
            if true():
                return
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {within_s:g} s")


@dataclass
class Server:
    """One redis-server process with a folder of its own."""

    folder: Path
    options: list[str] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    tls: Certificates | None = None
    password: str | None = None
    sentinel: bool = False
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        self.start_without_waiting()
        until(lambda: self.client().ping() or True, f"redis-server on port {self.port}")
        return self

    def start_without_waiting(self) -> None:
        binary = shutil.which("redis-server")
        assert binary, (
            "redis-server is missing; run: sh tests/ensure_debian.sh redis-server redis-server"
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        port = ["--tls-port" if self.tls else "--port", str(self.port)]
        if self.tls:
            port += ["--port", "0", "--tls-cert-file", str(self.tls.certificate)]
            port += ["--tls-key-file", str(self.tls.key), "--tls-ca-cert-file"]
            port += [str(self.tls.authority), "--tls-auth-clients", "no"]
        common = ["--bind", "127.0.0.1", "--dir", str(self.folder)]
        common += ["--logfile", str(self.folder / "log")]
        command = [binary]
        if self.sentinel:
            command += [str(self.folder / "sentinel.conf"), *port, *common, "--sentinel"]
        else:
            command += [*port, *common, "--save", "", "--enable-debug-command", "local"]
            command += ["--repl-diskless-sync-delay", "0"]
        if self.password:
            command += ["--requirepass", self.password, "--masterauth", self.password]
        self.process = subprocess.Popen([*command, *self.options])

    def client(self, **options: Any) -> client.Redis:
        """A plain client of this server, to look behind the store's back."""
        tls = {"ssl": True, "ssl_ca_certs": str(self.tls.authority)} if self.tls else {}
        settings = {"password": self.password, "protocol": 2, **tls, **options}
        return client.Redis(host="127.0.0.1", port=self.port, **settings)

    def cli(self, *arguments: str) -> str:
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill(self) -> None:
        """As a crash would: SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """As a machine that hangs: connections open, nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def started(*servers: Server) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


@contextlib.contextmanager
def standalone(folder: Path, **settings: Any) -> Iterator[Server]:
    server = Server(folder, **settings)
    with started(server):
        yield server


@contextlib.contextmanager
def with_tls(folder: Path) -> Iterator[tuple[Server, str]]:
    """A server behind TLS and a password, and the start of its store URL's query."""
    folder.mkdir(parents=True, exist_ok=True)
    certificates = make(folder)
    with standalone(folder / "server", tls=certificates, password=PASSWORD) as server:
        yield server, f"ssl_ca_certs={certificates.authority}"


@dataclass
class SentinelGroup:
    """A master, a replica, and three sentinels that watch them."""

    master: Server
    replica: Server
    sentinels: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def notice_within(self, milliseconds: int) -> None:
        """The time without an answer after which sentinels hold a server for down."""
        for sentinel in self.sentinels:
            sentinel.client().sentinel_set(SERVICE, "down-after-milliseconds", milliseconds)


@contextlib.contextmanager
def sentinel_group(folder: Path) -> Iterator[SentinelGroup]:
    master = Server(folder / "master")
    replica = Server(folder / "replica", ["--replicaof", "127.0.0.1", str(master.port)])
    sentinels = [Server(folder / f"sentinel-{n}", sentinel=True) for n in range(3)]
    for sentinel in sentinels:
        sentinel.folder.mkdir(parents=True)
        (sentinel.folder / "sentinel.conf").write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
    with started(master, replica, *sentinels):
        until(lambda: replicates(replica), "replication")
        for sentinel in sentinels:
            until(lambda s=sentinel: _sees_all(s), "sentinels to see each other")  # type: ignore[misc]
        yield SentinelGroup(master, replica, sentinels)


def replicates(server: Server) -> bool:
    """Whether it is a replica that has what its master has."""
    return bool(server.client().info("replication").get("master_link_status") == "up")


def _sees_all(sentinel: Server) -> bool:
    state = sentinel.client().sentinel_master(SERVICE)
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


@dataclass
class ClusterGroup:
    """Three masters and their replicas."""

    servers: list[Server]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{s.port}" for s in self.servers[:3])

    def notice_within(self, milliseconds: int) -> None:
        """The time without an answer after which nodes hold another for down."""
        for server in self.servers:
            server.client().config_set("cluster-node-timeout", milliseconds)

    def by_port(self, port: int) -> Server:
        return next(server for server in self.servers if server.port == port)

    def master_of(self, slot: int) -> Server:
        for first, last, master, *_ in self.servers[0].client().execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return self.by_port(master[1])
        raise LookupError(f"slot {slot} is not served")


@contextlib.contextmanager
def cluster_group(folder: Path) -> Iterator[ClusterGroup]:
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(QUICK_MS)]
    options += ["--cluster-replica-validity-factor", "0"]
    servers = [Server(folder / f"node-{n}", options) for n in range(6)]
    with started(*servers):
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        servers[0].cli(
            "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"
        )
        for server in servers:
            until(lambda s=server: cluster_whole(s), f"the cluster, seen from {server.port}")  # type: ignore[misc]
        yield ClusterGroup(servers)


def cluster_whole(server: Server) -> bool:
    info = server.client().execute_command("CLUSTER INFO")
    nodes = server.client().execute_command("CLUSTER SLOTS")
    replicated = all(len(node) == 4 for node in nodes)  # first, last, master, replica
    synced = server.client().info("replication")
    up = synced["role"] == "master" or synced["master_link_status"] == "up"
    state = info if isinstance(info, dict) else {}
    return replicated and up and state.get("cluster_state") == "ok"
