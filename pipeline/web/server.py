"""The web viewer as the rest of the program sees it: it is opened, says where it is, and is closed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cliprl.pipeline.web.address import Address, bound_address, is_loopback, own_addresses
from cliprl.pipeline.web.auth import AccessControl
from cliprl.pipeline.web.connections import ConnectionPool
from cliprl.pipeline.web.limits import Limits
from cliprl.pipeline.web.listener import Listener
from cliprl.pipeline.web.media.encoder_thread import EncoderThread, open_channels
from cliprl.pipeline.web.media.rtc import bind_to
from cliprl.pipeline.web.routes import Routes
from cliprl.pipeline.web.status_json import ProgramInfo

# How long connections have to end when the program does.
_FAREWELL = 1.0
# How long a body that no handler wants may take to end, in seconds.
_LINGERING = 2.0


class WebViewer:
    """Serves the page for `program` from a thread of its own, until it is closed (a context manager).

    `limits`: by default as many connections as this process has handles to spare for.
    Beyond loopback a token is needed, a new one each time: it is part of `url`, and nowhere else. Raises UsageError where it
    can't listen on `address`.
    """

    def __init__(self, program: ProgramInfo, address: Address | None = None, limits: Limits | None = None) -> None:
        address = address or Address()
        self._listening = address.listen()
        self.host, self.port = bound_address(self._listening)
        self.token = None if is_loopback(self.host) else secrets.token_urlsafe(24)
        bind_to(self.host)
        self._loop = asyncio.new_event_loop()
        channels = open_channels()
        self._pump = EncoderThread(program.hub, channels, self._loop)
        gate = AccessControl(self.host, self.port, self.token, name=address.host)
        limits = limits or Limits.of_process(one_peer=is_loopback(self.host))
        self._pool = ConnectionPool(limits)
        self._runner = web.AppRunner(
            Routes(program, gate, channels, self._pump, self._pool).application(),
            access_log=None,
            logger=_logger(),
            shutdown_timeout=_FAREWELL,
            keepalive_timeout=limits.idle_s,
            lingering_time=_LINGERING,
        )
        self._listener: Listener | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="web server", daemon=True)
        self._thread.start()
        self._call(self._serve())
        self._pump.start()

    @property
    def url(self) -> str:
        """Where the page is, for this machine's browser; with the token where one is needed, so not to be logged."""
        return self._url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host))

    @property
    def elsewhere(self) -> list[str]:
        """Where the page is for other machines, one URL for each address of this one; empty on loopback. As secret as `url`."""
        if self.host not in ("0.0.0.0", "::"):
            return []
        return [self._url(address) for address in own_addresses(ipv6=self.host == "::")]

    def _url(self, host: str) -> str:
        place = f"[{host}]" if ":" in host else host
        return f"http://{place}:{self.port}/{f'#token={self.token}' if self.token else ''}"

    async def _serve(self) -> None:
        await self._runner.setup()
        assert self._runner.server is not None
        self._listener = Listener(self._listening, self._pool, self._runner.server)
        self._listener.start()

    async def _end(self) -> None:
        if self._listener is not None:
            await self._listener.close()
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # those of connections that were lost a moment ago
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def close(self) -> None:
        """End all connections and stop listening. Calling it twice is harmless."""
        if self._loop.is_closed():
            return
        self._pump.stop()
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _logger() -> logging.Logger:
    """aiohttp's log without what clients do wrong: whoever does could fill the console, or block the program by a full pipe."""
    logger = logging.getLogger("cliprl.web")
    if not logger.filters:
        logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)
