"""Redis Cluster: refreshes the slot map in the background and follows redirections."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError, TryAgainError

from feature_store.errors import StoreError, StoreUnavailable
from feature_store.faults import FaultLog, repeat
from feature_store.redis.connection import Parts
from feature_store.redis.errors import translate
from feature_store.redis.replies import SlotRange, address_of, parsing_reply, slots_of
from feature_store.redis.server import BULK, REQUESTS, RedisServer
from feature_store.redis.topology import Command, Reply, place, send
from feature_store.redis.url import Address, RedisUrl

REFRESH_S = 5.0  # of the slot map, while every node answers
DOUBT_REFRESH_S = 0.25  # of the slot map, while a node fails or redirects
MAP_PATIENCE_S = 0.5
MOST_REDIRECTIONS = 4


class Cluster:
    """The masters of a cluster, each with its own connections and breaker."""

    def __init__(self, url: RedisUrl, budget_s: float, faults: FaultLog) -> None:
        self._url, self._budget_s, self._faults = url, budget_s, faults
        self._servers: dict[Address, RedisServer] = {}
        self._masters: list[Address] = []
        self._owner: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._why: StoreError = StoreUnavailable("redis cluster: no slot map yet")
        self._doubt, self._known = asyncio.Event(), asyncio.Event()
        self._mapping = asyncio.create_task(
            repeat("redis cluster: slot map", self._keep_map, faults, DOUBT_REFRESH_S)
        )

    async def ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * MAP_PATIENCE_S):
                await self._known.wait()
        if not self._masters:
            raise type(self._why)(str(self._why))
        for address in self._masters:
            await self._server(address).ready()

    async def call(
        self, commands: Sequence[Command], deadline: float, *, lane: int = REQUESTS
    ) -> list[Reply]:
        """Send one batch per node concurrently, then follow redirections."""
        replies: list[Any] = [None] * len(commands)
        todo = [(at, self._owner_of(command), False) for at, command in enumerate(commands)]
        for _ in range(MOST_REDIRECTIONS):
            await self._round(commands, todo, replies, deadline, lane)
            todo = []
            for at, reply in enumerate(replies):
                if isinstance(reply, AskError):  # MovedError is one too
                    address = (reply.host, reply.port)
                    todo.append((at, address, not isinstance(reply, MovedError)))
            if not todo:
                break
        for at, reply in enumerate(replies):
            per_key_fallback = commands[at].per_key_fallback
            if isinstance(reply, TryAgainError) and per_key_fallback is not None:
                replies[at] = await self._key_by_key(per_key_fallback(), deadline, lane)
        if any(isinstance(reply, (StoreUnavailable, AskError)) for reply in replies):
            self._doubt.set()
        return [translate(r, "redis cluster") if isinstance(r, Exception) else r for r in replies]

    async def _round(
        self,
        commands: Sequence[Command],
        todo: list[tuple[int, Address | None, bool]],
        replies: list[Any],
        deadline: float,
        lane: int,
    ) -> None:
        """Send each command to its address, with ASKING for a slot that is being migrated."""
        groups: defaultdict[Address, list[tuple[int, bool]]] = defaultdict(list)
        for at, address, asking in todo:
            if address is None:
                replies[at] = StoreUnavailable(f"redis cluster: slot not served: {self._why}")
            else:
                groups[address].append((at, asking))

        async def one(address: Address, wanted: list[tuple[int, bool]]) -> None:
            batch: list[Command] = []
            for at, asking in wanted:
                batch += [Command(("ASKING",)), commands[at]] if asking else [commands[at]]
            answers = await send(self._server(address), batch, deadline, lane)
            position = 0
            for at, asking in wanted:
                position += asking
                replies[at] = answers[position]
                position += 1
                if isinstance(replies[at], AskError):  # MovedError is one too
                    replies[at] = self._named(replies[at], address)
                if isinstance(replies[at], MovedError):
                    self._doubt.set()

        await asyncio.gather(*(one(address, wanted) for address, wanted in groups.items()))

    def _named(self, redirection: AskError, asked: Address) -> Exception:
        """Return the redirection by ``asked`` with its host resolved."""
        try:
            with parsing_reply(place(asked), "a command"):
                redirection.host, redirection.port = address_of(
                    redirection.host, redirection.port, asked
                )
        except StoreError as odd:
            self._faults.note("redis cluster: odd redirection", odd)
            return odd
        return redirection

    async def _key_by_key(
        self, commands: Sequence[Command], deadline: float, lane: int
    ) -> list[Reply] | StoreError:
        replies = await self.call(commands, deadline, lane=lane)
        return next((reply for reply in replies if isinstance(reply, StoreError)), replies)

    async def on(self, node: int, parts: Parts, deadline: float) -> Reply:
        if node >= len(self._masters):
            return StoreUnavailable("redis cluster: its nodes have just changed; try again")
        server = self._server(self._masters[node])
        [reply] = await send(server, [Command(parts)], deadline, BULK)
        return translate(reply, server.place) if isinstance(reply, Exception) else reply

    @property
    def masters(self) -> int:
        return len(self._masters)

    def _owner_of(self, command: Command) -> Address | None:
        if command.key:
            return self._owner[key_slot(command.key)]
        return next(
            (address for address in self._masters if self._server(address).healthy),
            self._masters[0] if self._masters else None,
        )

    def _server(self, address: Address) -> RedisServer:
        server = self._servers.get(address)
        if server is None:
            connection = self._url.connection(address)
            server = RedisServer(place(address), connection, self._budget_s, self._faults)
            self._servers[address] = server
        return server

    async def _keep_map(self) -> None:
        self._doubt.clear()
        await self._read_map()
        if self._masters:
            self._known.set()
        pause = REFRESH_S if self._masters else DOUBT_REFRESH_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._doubt.wait()
        await asyncio.sleep(DOUBT_REFRESH_S)

    async def _read_map(self) -> None:
        """Ask all known nodes, apply the first valid slot map, and close nodes not in it."""
        deadline = asyncio.get_running_loop().time() + MAP_PATIENCE_S
        addresses = list(dict.fromkeys([*self._masters, *self._url.addresses]))
        asking = [asyncio.create_task(self._slots_of(address, deadline)) for address in addresses]
        try:
            for answered in asyncio.as_completed(asking):
                slots = await answered
                if slots:
                    self._take(slots)
                    break
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        for address in self._servers.keys() - {*self._masters, *self._url.addresses}:
            await self._servers.pop(address).close()

    async def _slots_of(self, address: Address, deadline: float) -> list[SlotRange] | None:
        server = self._server(address)
        [reply] = await send(server, [Command(("CLUSTER", "SLOTS"))], deadline, REQUESTS)
        if isinstance(reply, Exception):
            self._why = translate(reply, server.place)
            return None
        try:
            with parsing_reply(server.place, "CLUSTER SLOTS"):
                slots, odd = slots_of(reply, address)
        except StoreError as error:
            self._why = error
            self._faults.note("redis cluster: odd slot map", error)
            return None
        for entry in odd:
            why = f"{server.place}: CLUSTER SLOTS: passed over {str(entry)[:200]}"
            self._why = StoreUnavailable(why)
            self._faults.note("redis cluster: odd slot map", why)
        if odd and slots:  # keep the known owners of the other slots
            taken = {slot for first, last, _ in slots for slot in range(first, last + 1)}
            slots += [
                (slot, slot, owner)
                for slot, owner in enumerate(self._owner)
                if owner is not None and slot not in taken
            ]
        return slots

    def _take(self, slots: list[SlotRange]) -> None:
        owner: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, address in slots:
            owner[first : last + 1] = [address] * (last + 1 - first)
        self._owner = owner
        self._masters = list(dict.fromkeys(address for _, _, address in slots))

    async def close(self) -> None:
        self._mapping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._mapping
        self._why = StoreUnavailable("the store is closed")
        self._masters, self._owner = [], [None] * REDIS_CLUSTER_HASH_SLOTS
        endpoints, self._servers = self._servers, {}
        for server in endpoints.values():
            await server.close()

    @property
    def open_breakers(self) -> list[str]:
        return [
            self._servers[address].place
            for address in self._masters
            if address in self._servers and self._servers[address].breaker_open
        ]
