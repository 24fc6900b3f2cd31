"""Accepts connections at a limited rate, so that the display path keeps its processor time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cliprl.pipeline.web.connections import Connection, ConnectionPool

# Connections accepted in one go, and the pause in seconds after them.
_BATCH, _PAUSE = 16, 0.02
# The pause in seconds when no file handle is left.
_EXHAUSTED_PAUSE = 0.25
_BACKLOG = 1024


class Listener:
    """Accepts connections on `listening` and adds them to `pool`. `handler` makes the protocol that serves each."""

    def __init__(self, listening: socket.socket, pool: ConnectionPool, handler: Callable[[], Any]) -> None:
        self._listening, self._pool, self._handler = listening, pool, handler
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to accept connections."""
        self._listening.setblocking(False)
        self._listening.listen(_BACKLOG)
        self._watch()

    async def close(self) -> None:
        """Stop accepting and close the socket. Open connections continue."""
        self._pause(0.0)
        self._listening.close()
        await asyncio.gather(*self._opening)

    def _watch(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                client, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no file handle or no memory is left
                self._pool.free_handle()
                self._pause(_EXHAUSTED_PAUSE)
                return
            client.setblocking(False)
            task = self._loop.create_task(self._open(client))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._pause(_PAUSE)

    async def _open(self, client: socket.socket) -> None:
        with suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: Connection(self._pool, self._handler()), client)

    def _pause(self, seconds: float) -> None:
        """Stop accepting for `seconds`; 0: permanently."""
        self._loop.remove_reader(self._listening)
        if self._resume is not None:
            self._resume.cancel()
        self._resume = self._loop.call_later(seconds, self._watch) if seconds else None
