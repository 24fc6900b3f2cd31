"""Limits on clients, so that they never use up the file handles that recording and display need."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

# File handles of this process reserved for its main tasks: reconnecting sources, recordings, outputs and a restarted
# segmenter; and an estimate of the open handles, for systems that can't count them.
RESERVED_HANDLES = 128
_OPEN_UNKNOWN = 64
# The most and the fewest connections. The viewer stays reachable when handles are scarce.
_MOST_CONNECTIONS, _FEWEST_CONNECTIONS = 256, 8
_MOST_VIEWERS = 64
_PEER_SHARE = 4
# Wrong tokens that one peer may send within a time window in seconds, and the number of peers remembered.
LOGIN_ATTEMPTS, LOGIN_WINDOW = 10, 60.0
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The most connections in total and per peer, viewers (pages and MJPEG streams), and file handles of WebRTC.

    request_s: seconds from the first byte of a request to its last; for a connection's first request, from the connection.
    idle_s: seconds between two requests, and for the client to read a response.
    """

    connections: int = _MOST_CONNECTIONS
    per_peer: int = _MOST_CONNECTIONS
    viewers: int = _MOST_VIEWERS
    rtc_handles: int = 256
    request_s: float = 10.0
    idle_s: float = 20.0

    @classmethod
    def of_process(cls, *, one_peer: bool) -> Limits:
        """Return limits that leave `RESERVED_HANDLES` to this process. `one_peer`: all clients share one address (loopback)."""
        free = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        free = 1 << 20 if free == resource.RLIM_INFINITY else free
        return cls.of_handles(free - open_handles() - RESERVED_HANDLES, one_peer=one_peer)

    @classmethod
    def of_handles(cls, free: int, *, one_peer: bool) -> Limits:
        """Return limits under which clients use at most `free` handles, or the fewest that keep the viewer reachable."""
        connections = min(max(free // 2, _FEWEST_CONNECTIONS), _MOST_CONNECTIONS)
        per_peer = connections if one_peer else max(connections // _PEER_SHARE, _FEWEST_CONNECTIONS)
        return cls(connections, per_peer, min(connections // 2, _MOST_VIEWERS), max(free - connections, 0))


def open_handles() -> int:
    """Return the number of open file handles of this process."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))
    return _OPEN_UNKNOWN


class LoginLimit:
    """Counts wrong tokens per peer. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, peer: str) -> float:
        """Return the seconds until `peer` may try again, 0 if it may now."""
        failures = self._failures.get(peer)
        if failures is None or len(failures) < LOGIN_ATTEMPTS:
            return 0.0
        return max(failures[0] + LOGIN_WINDOW - self._clock(), 0.0)

    def count_failure(self, peer: str) -> None:
        """Count a wrong token. When too many peers are remembered, the one with the oldest failure is forgotten."""
        failures = self._failures.setdefault(peer, deque(maxlen=LOGIN_ATTEMPTS))
        failures.append(self._clock())
        self._failures.move_to_end(peer)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)


class MessageBudget:
    """Lets a page send `rate` messages a second. One that sends more is read more slowly, and delays no other page."""

    def __init__(self, rate: float = 400.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._counted = rate, clock()

    async def take(self, cost: float = 1.0) -> None:
        """Count a message of this cost; wait while too many have come."""
        now = self._clock()
        self._left = min(self._left + (now - self._counted) * self._rate, self._rate) - cost
        self._counted = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._rate)
