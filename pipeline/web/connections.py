"""Limits for connections from the moment they are accepted: a number of connections, and time limits while they wait.

These classes stand between aiohttp, which serves the requests, and the sockets. When all places are taken, a new connection
replaces the waiting one that has waited longest, preferably one without an admitted request. Idle clients therefore never
lock out others, even from the same address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cliprl.pipeline.web.address import peer_key
from cliprl.pipeline.web.limits import Limits

# Bytes of a response that must leave the buffer within `Limits.idle_s` for the time limit to be extended.
_PROGRESS = 1 << 16
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 29\r\nConnection: close\r\n\r\n"
    b"the request came too slowly.\n"
)


class Connection(asyncio.Protocol):
    """One client's connection. It has a time limit, except while `busy`: then a handler serves it.

    `trusted`: it has sent an admitted request. `since`: the start of its wait, in the event loop's time.
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
        """Enter the pool, or close the connection if the pool is full."""
        self._transport = transport
        self.peer = peer_key(transport.get_extra_info("peername"))
        self._admitted = self._pool.enter(self)
        if self._admitted:
            self._arm(self._pool.limits.request_s)
            self.handler.connection_made(transport)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Pass data on; the first data of a further request starts its time limit."""
        self._received = True
        if self._idle and not self.busy:
            self._idle = False
            self._arm(self._pool.limits.request_s)
        self.handler.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass the end of the client's data on."""
        result: bool | None = self.handler.eof_received()
        return result

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the pool."""
        self._disarm()
        if self._admitted:
            self._pool.leave(self)
            self.handler.connection_lost(error)

    def pause_writing(self) -> None:
        """Pass on that the send buffer is full."""
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the send buffer has room."""
        self.handler.resume_writing()

    def begin(self) -> None:
        """Mark the connection as busy with a complete request, without a time limit."""
        self.busy = True
        self._disarm()

    def end(self, *, trusted: bool) -> None:
        """Mark the request as served and start the idle time limit. `trusted`: the request was admitted."""
        self.busy, self._received, self._idle = False, False, True
        self.trusted = self.trusted or trusted
        self.since, self._unsent = self._loop.time(), 0
        self._arm(self._pool.limits.idle_s)

    def abort(self) -> None:
        """Close at once and discard unsent data."""
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
                self._transport.write(_TOO_SLOW)
            self._transport.close()


class ConnectionPool:
    """All connections of a server, within `limits`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._by_handler: dict[Any, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_handler)

    def begin(self, request: web.Request) -> None:
        """Mark a completely read request as being served. Raises HTTPServiceUnavailable if its connection was closed."""
        connection = self._by_handler.get(request.protocol)
        if connection is None:
            raise web.HTTPServiceUnavailable(text="too many connections: try again\n")
        connection.begin()

    def end(self, request: web.Request, *, trusted: bool) -> None:
        """Mark a request as served."""
        connection = self._by_handler.get(request.protocol)
        if connection is not None:
            connection.end(trusted=trusted)

    def enter(self, connection: Connection) -> bool:
        """Add a connection; where there are too many, close a waiting one. Returns False if all are busy."""
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

    def free_handle(self) -> None:
        """Close a waiting connection, to free a file handle of the process."""
        self._close_one(self._by_handler.values())

    def _close_one(self, connections: Iterable[Connection]) -> bool:
        waiting = [c for c in connections if not c.busy]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda c: (c.trusted, c.since))
        self.leave(oldest)
        oldest.abort()
        return True


def tracking_middleware(pool: ConnectionPool, trusts: Callable[[web.Request], bool]) -> Middleware:
    """Return the outermost middleware, which marks connections of `pool` as busy or waiting, and as trusted.

    The handler of a POST request marks its connection as busy when the body has been read: `ConnectionPool.begin`.
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
