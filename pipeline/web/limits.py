"""How many connections the viewer takes, so that clients never use up what recording and displaying need."""

from __future__ import annotations

import os
import resource
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

# Handles of this process that are kept for what it is there for: sources that reconnect, recordings, outputs, a segmenter
# that is started again. An estimate of what is open where the system can't tell.
RESERVED_HANDLES = 128
_OPEN_UNKNOWN = 64
# At most and at least; few handles are never a reason to be unreachable.
_MOST_CONNECTIONS, _FEWEST_CONNECTIONS = 256, 8
_MOST_VIEWERS = 64
_PEER_SHARE = 4
# Wrong tokens that one peer may send in so many seconds, and peers that are remembered.
LOGIN_ATTEMPTS, LOGIN_WINDOW = 10, 60.0
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of connections in all and of one peer, of viewers (pages and streams), and of WebRTC handles.

    request_s: seconds from the first byte of a request to its last; a connection's first request counts from its beginning.
    idle_s: seconds between two requests, and for a response to be taken.
    """

    connections: int = _MOST_CONNECTIONS
    per_peer: int = _MOST_CONNECTIONS
    viewers: int = _MOST_VIEWERS
    rtc_handles: int = 256
    request_s: float = 10.0
    idle_s: float = 20.0

    @classmethod
    def of_process(cls, *, one_peer: bool) -> Limits:
        """Limits that leave `RESERVED_HANDLES` of this process's. `one_peer`: all clients share one address (loopback)."""
        free = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        free = 1 << 20 if free == resource.RLIM_INFINITY else free
        return cls.of_handles(free - open_handles() - RESERVED_HANDLES, one_peer=one_peer)

    @classmethod
    def of_handles(cls, free: int, *, one_peer: bool) -> Limits:
        """Limits under which clients use at most `free` handles, or the fewest that leave the viewer reachable."""
        connections = min(max(free // 2, _FEWEST_CONNECTIONS), _MOST_CONNECTIONS)
        per_peer = connections if one_peer else max(connections // _PEER_SHARE, _FEWEST_CONNECTIONS)
        return cls(connections, per_peer, min(connections // 2, _MOST_VIEWERS), max(free - connections, 0))


def open_handles() -> int:
    """File handles that this process has open."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))
    return _OPEN_UNKNOWN


class LoginLimit:
    """Counts wrong tokens by peer. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, peer: str) -> float:
        """Seconds until `peer` may try again; 0 where it may now."""
        failures = self._failures.get(peer)
        if failures is None or len(failures) < LOGIN_ATTEMPTS:
            return 0.0
        return max(failures[0] + LOGIN_WINDOW - self._clock(), 0.0)

    def failed(self, peer: str) -> None:
        """Count a wrong token; the peer that has been quiet longest is forgotten where too many are remembered."""
        failures = self._failures.setdefault(peer, deque(maxlen=LOGIN_ATTEMPTS))
        failures.append(self._clock())
        self._failures.move_to_end(peer)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
