"""The web viewer: starts and stops the server on a thread with its own event loop."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Coroutine
from typing import Any, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from cliprl.pipeline.web.address import Address, bound_address, check_proxy_url, external_addresses, is_loopback
from cliprl.pipeline.web.auth import AccessControl
from cliprl.pipeline.web.connections import ConnectionPool
from cliprl.pipeline.web.limits import Limits
from cliprl.pipeline.web.listener import Listener
from cliprl.pipeline.web.media.encoder_thread import EncoderThread, open_channels
from cliprl.pipeline.web.media.rtc import bind_to
from cliprl.pipeline.web.routes import Routes
from cliprl.pipeline.web.status_json import ProgramInfo

# Seconds that connections have to end when the program does.
_SHUTDOWN_S = 1.0
# Seconds that a client has to finish a request body that no handler reads.
_LINGERING_S = 2.0


class WebViewer:
    """Serves the page for `program` on a separate thread until it is closed. A context manager.

    `limits`: by default as many connections as this process has file handles to spare.
    Beyond loopback, and behind the reverse proxy whose address for the page is `proxy_url`, a token is required. It is new for
    each viewer and occurs only in `url` and `external_urls`.
    Raises UsageError if it can't listen on `address`, or `proxy_url` is none.
    """

    def __init__(
        self,
        program: ProgramInfo,
        address: Address | None = None,
        limits: Limits | None = None,
        *,
        proxy_url: str = "",
    ) -> None:
        address = address or Address()
        self._proxy_url = check_proxy_url(proxy_url) if proxy_url else ""
        self._listening = address.listen()
        self.host, self.port = bound_address(self._listening)
        local = is_loopback(self.host)
        self.token = None if local and not proxy_url else secrets.token_urlsafe(24)
        bind_to(self.host)
        self._loop = asyncio.new_event_loop()
        channels = open_channels()
        self._encoder = EncoderThread(program.broadcast, channels, self._loop)
        proxy = str(URL(self._proxy_url).origin()) if self._proxy_url else ""
        access = AccessControl(self.host, self.port, self.token, name=address.host, proxy=proxy)
        limits = limits or Limits.of_process(one_peer=local or bool(proxy))
        self._pool = ConnectionPool(limits)
        self._runner = web.AppRunner(
            Routes(program, access, channels, self._encoder.latency, self._pool).application(),
            access_log=None,
            logger=_logger(),
            shutdown_timeout=_SHUTDOWN_S,
            keepalive_timeout=limits.idle_s,
            lingering_time=_LINGERING_S,
        )
        self._listener: Listener | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="web server", daemon=True)
        self._thread.start()
        self._call(self._serve())
        self._encoder.start()

    @property
    def url(self) -> str:
        """The page's URL for this machine's browser. It may hold the token: don't log it."""
        return self._url(self._place({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)))

    @property
    def external_urls(self) -> list[str]:
        """The page's URLs for other machines: of the proxy, and one per address of this machine. As secret as `url`."""
        is_open = self.host in ("0.0.0.0", "::")
        places = [self._place(address) for address in external_addresses(ipv6=self.host == "::")] if is_open else []
        return [self._url(place) for place in (self._proxy_url, *places) if place]

    def _place(self, host: str) -> str:
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def _url(self, place: str) -> str:
        return f"{place}{f'#token={self.token}' if self.token else ''}"

    async def _serve(self) -> None:
        await self._runner.setup()
        assert self._runner.server is not None
        self._listener = Listener(self._listening, self._pool, self._runner.server)
        self._listener.start()

    async def _end(self) -> None:
        if self._listener is not None:
            await self._listener.close()
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # of connections that were lost a moment ago
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def close(self) -> None:
        """End all connections and stop listening. Further calls have no effect."""
        if self._loop.is_closed():
            return
        self._encoder.stop()
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _logger() -> logging.Logger:
    """Return aiohttp's logger without client errors: a client could fill the console, or block the program by a full pipe."""
    logger = logging.getLogger("cliprl.web")
    if not logger.filters:
        logger.addFilter(_is_not_client_error)
    return logger


def _is_not_client_error(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)
