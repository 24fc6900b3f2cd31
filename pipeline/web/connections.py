"""Connections from the moment they are accepted: before any request is read they have a time limit and a limited number.

aiohttp serves the requests; this stands between it and the sockets. Where all places are taken, a new connection is let in
and the one that has waited longest for its client is closed, first of all one that never sent a request that was let in.
So clients that only wait cost others nothing, also where all of them come from one address.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cliprl.pipeline.web.limits import Limits

# A response that is still being taken is given more time while at least so many bytes go out in it.
_PROGRESS = 1 << 16
_TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 29\r\nConnection: close\r\n\r\n"
    b"the request came too slowly.\n"
)


class Connection(asyncio.Protocol):
    """One client's connection. While `busy` a handler serves it; otherwise it waits for its client, with a time limit.

    `trusted`: it has sent a request that was let in. `since`: when it began to wait.
    """

    def __init__(self, pool: ConnectionPool, handler: Any) -> None:
        self._pool, self.handler = pool, handler
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._admitted = self._received = self._idle = False
        self._unsent = 0
        self.busy = self.trusted = False
        self.peer = ""
        self.since = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self._transport = transport
        self.peer = peer_key(transport.get_extra_info("peername"))
        self._admitted = self._pool.enter(self)
        if self._admitted:
            self._arm(self._pool.limits.request_s)
            self.handler.connection_made(transport)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        self._received = True
        if self._idle and not self.busy:
            self._idle = False
            self._arm(self._pool.limits.request_s)
        self.handler.data_received(data)

    def eof_received(self) -> bool | None:
        """The client sends no more."""
        result: bool | None = self.handler.eof_received()
        return result

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        self._disarm()
        if self._admitted:
            self._pool.leave(self)
            self.handler.connection_lost(error)

    def pause_writing(self) -> None:
        """The client takes data too slowly."""
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.handler.resume_writing()

    def begin(self) -> None:
        """A whole request is there and is being served: no time limit holds."""
        self.busy = True
        self._disarm()

    def end(self, *, trusted: bool) -> None:
        """The request has been served; the client may take the response, and send another. `trusted`: it was let in."""
        self.busy, self._received, self._idle = False, False, True
        self.trusted = self.trusted or trusted
        self.since, self._unsent = self._loop.time(), 0
        self._arm(self._pool.limits.idle_s)

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""
        self._disarm()
        self._transport.abort()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent and (not self._unsent or self._unsent - unsent >= _PROGRESS):
            self._unsent = unsent
            self._arm(self._pool.limits.idle_s)
        elif unsent:
            self.abort()
        else:
            if self._received:
                self._transport.write(_TOO_LATE)
            self._transport.close()


class ConnectionPool:
    """All connections of a server, within `limits`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._by_handler: dict[Any, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_handler)

    def begin(self, request: web.Request) -> None:
        """The whole of a request has been read. Raises HTTPServiceUnavailable where its connection was closed meanwhile."""
        connection = self._by_handler.get(request.protocol)
        if connection is None:
            raise web.HTTPServiceUnavailable(text="too many connections: try again\n")
        connection.begin()

    def end(self, request: web.Request, *, trusted: bool) -> None:
        """A request has been served."""
        connection = self._by_handler.get(request.protocol)
        if connection is not None:
            connection.end(trusted=trusted)

    def enter(self, connection: Connection) -> bool:
        """Add a connection, and close another for it where there are too many. False: all are being served."""
        same_peer = [c for c in self._by_handler.values() if c.peer == connection.peer]
        if len(same_peer) >= self.limits.per_peer and not self._close_one(same_peer):
            return False
        if len(self) >= self.limits.connections and not self._close_one(self._by_handler.values()):
            return False
        self._by_handler[connection.handler] = connection
        return True

    def leave(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._by_handler.pop(connection.handler, None)

    def relieve(self) -> None:
        """Close a connection that waits, where the process has no handle left."""
        self._close_one(self._by_handler.values())

    def _close_one(self, connections: Iterable[Connection]) -> bool:
        waiting = [c for c in connections if not c.busy]
        if not waiting:
            return False
        victim = min(waiting, key=lambda c: (c.trusted, c.since))
        self.leave(victim)
        victim.abort()
        return True


def tracking(pool: ConnectionPool, trusts: Callable[[web.Request], bool]) -> Middleware:
    """The outermost middleware: it tells the connections of `pool` when a request begins and ends, and which to trust.

    A POST begins when its body is there: `ConnectionPool.begin`.
    """

    @web.middleware
    async def track(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "POST":
            pool.begin(request)
        trusted = False
        try:
            response = await handler(request)
            trusted = response.status < 400 and trusts(request)
            return response
        finally:
            pool.end(request, trusted=trusted)

    return track


def peer_key(address: Any) -> str:
    """What counts as one peer: an IPv4 address, or an IPv6 network of 64 bits, which one machine may use at will."""
    text = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
