"""Fits the connection limits to the number of file descriptors that the process may open."""

from __future__ import annotations

import resource
import sys

from service.observability.logs import logger
from service.settings import PREFIX, Settings

LIMITED = ("max_idle_connections", "max_receiving_connections", "max_in_flight_connections")
# For the store's connections, files of bundles and tables, child processes.
RESERVE, RESERVED_SHARE = 256, 0.25  # at most this share of the limit


def fitted(settings: Settings) -> Settings:
    """The settings, with the connection limits lowered in proportion if they need more
    descriptors than the process may open. A warning names the lowered limits.

    First raises the soft limit (``ulimit -Sn``) as far as needed and as the hard limit allows.
    """
    wanted = {name: int(getattr(settings, name)) for name in LIMITED}
    descriptors = raised_limit(2 * sum(wanted.values()) + RESERVE)
    allowed = connections_allowed(descriptors)
    if sum(wanted.values()) <= allowed:
        return settings
    share = allowed / sum(wanted.values())
    lowered = {name: max(1, int(most * share)) for name, most in wanted.items()}
    logger.warning(
        "limits on connections are lowered to the descriptors there are: raise `ulimit -Hn`",
        descriptors=descriptors,
        **{f"{PREFIX}{name}".upper(): f"{wanted[name]} -> {lowered[name]}" for name in LIMITED},
    )
    return settings.model_copy(update=lowered)


def connections_allowed(descriptors: int | None = None) -> int:
    """How many of ``descriptors``, by default of the soft limit, connections may use."""
    if descriptors is None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptors = sys.maxsize if soft == resource.RLIM_INFINITY else soft
    return descriptors - min(RESERVE, int(descriptors * RESERVED_SHARE))


def raised_limit(wanted: int) -> int:
    """The soft limit, after raising it towards ``wanted``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft >= most:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
