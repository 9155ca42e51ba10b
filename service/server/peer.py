"""What our own server tells a request of its connection, beyond ASGI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from starlette.types import Scope

PEER = "peer"  # in a request's scope; another server has none


class Peer(Protocol):
    def whole_body(self) -> bytes | None:
        """The body, if all of it is here and none of it was taken; ``receive`` waits for it."""

    @property
    def has_left(self) -> bool:
        """The client has closed its connection."""

    def watch(self, left: Callable[[], None] | None) -> None:
        """Call ``left`` when that happens, from the event loop; None: not any more."""

    @property
    def has_half_closed(self) -> bool:
        """The client sends no more (FIN). It may have gone away; only a write would tell."""

    def watch_half_close(self, half_closed: Callable[[], None] | None) -> None:
        """Call ``half_closed`` when that happens, from the event loop; None: not any more."""


def peer_of(scope: Scope) -> Peer | None:
    return cast(Peer | None, scope.get(PEER))
