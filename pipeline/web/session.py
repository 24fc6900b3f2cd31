"""The WebSocket protocol of one open page.

The page sends JSON objects: {"ping": number}, {"want": [VIEW, ...]} for JPEG images, {"ack": VIEW} for each image drawn,
{"offer": SDP, "views": [VIEW, ...], "call": n} for WebRTC, {"hangup": true}.

The server sends {"pong": number, "clock": ms}, {"status": {...}}, {"answer": SDP, "call": n}, {"refused": LINE, "call": n}
(without "call" for an invalid message), and images: 16 bytes, little-endian (u32 number of the view, u32 index, f64 capture
time in ms of "clock"), then the JPEG.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from cliprl.engines import CliprlError
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.web.json_body import parse_object
from cliprl.pipeline.web.limits import MessageBudget
from cliprl.pipeline.web.media.channels import Channel
from cliprl.pipeline.web.media.encoder_thread import VIEWS
from cliprl.pipeline.web.media.rtc import Peer, PeerLimit

# Seconds between two status messages.
STATUS_PERIOD = 0.2
# The largest message or request from a client, in bytes.
MESSAGE_BYTES = 1 << 16
# Images on their way to a page at once, and seconds after which one is slow: then a second would only age behind it.
IN_FLIGHT, _SLOW_S = 2, 0.3
# The cost of a message that starts or ends images, and of one that starts a WebRTC connection; that of another is 1.
_VIEWS_COST, _OFFER_COST = 10, 50
_HEADER = struct.Struct("<IId")


class SendWindow:
    """Limits the images on their way to a page: two, and one while they arrive slowly. For one event loop."""

    def __init__(self) -> None:
        self._sent: deque[float] = deque()
        self._most = IN_FLIGHT
        self._changed = asyncio.Event()

    async def wait(self) -> None:
        """Wait until one more image may be sent."""
        while len(self._sent) >= self._most:
            self._changed.clear()
            await self._changed.wait()

    def send(self) -> None:
        """Count an image that is sent now."""
        self._sent.append(time.monotonic())

    def acknowledge(self) -> None:
        """Count an image that the page has drawn. More than were sent are ignored."""
        if self._sent:
            is_slow = time.monotonic() - self._sent.popleft() > _SLOW_S
            self._most = 1 if is_slow else IN_FLIGHT
            self._changed.set()


class ViewerSession:
    """Serves one WebSocket until it closes. `status` returns the status fields; `browser` is the client's IP address."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        channels: Mapping[tuple[str, str], Channel],
        status: Callable[[], dict[str, Any]],
        browser: str,
        limit: PeerLimit,
    ) -> None:
        self._socket, self._channels, self._status, self._browser = socket, channels, status, browser
        self._limit, self._budget = limit, MessageBudget()
        self._image_tasks: dict[str, asyncio.Task[None]] = {}
        self._windows: dict[str, SendWindow] = {}
        self._peer: Peer | None = None
        self._call: Any = None

    async def run(self) -> None:
        """Serve until the page closes the WebSocket."""
        status_task = asyncio.create_task(self._send_status())
        try:
            async for message in self._socket:
                await self._budget.take()
                if message.type == WSMsgType.TEXT:
                    await self._receive(message.data)
                elif message.type == WSMsgType.BINARY:
                    await self._send({"refused": "send JSON as text"})
        finally:
            for task in (status_task, *self._image_tasks.values()):
                task.cancel()
            await self._hang_up()

    async def close(self) -> None:
        """Close the WebSocket because the program ends."""
        await self._socket.close(code=1001, message=b"the program ends")

    async def _receive(self, text: str) -> None:
        try:
            await self._handle(parse_object(text))
        except ValueError as error:
            await self._send({"refused": str(error)})

    async def _handle(self, request: dict[str, Any]) -> None:
        if "ping" in request:
            await self._send({"pong": _number(request, "ping"), "clock": self._status()["clock"]})
        elif "ack" in request:
            if (window := self._windows.get(str(request["ack"]))) is not None:
                window.acknowledge()
        elif "want" in request:
            await self._budget.take(_VIEWS_COST)
            self._select_views(_views(request["want"]))
        elif "offer" in request:
            await self._budget.take(_OFFER_COST)
            self._call = _number(request, "call")
            answer = await self._connect(request["offer"], _views(request.get("views")))
            await self._send(answer | {"call": self._call})
        elif "hangup" in request:
            await self._hang_up()
        else:
            raise ValueError("a message holds ping, ack, want, offer or hangup")

    def _select_views(self, views: Sequence[str]) -> None:
        for view in VIEWS:
            running = self._image_tasks.pop(view, None)
            if view in views:
                self._image_tasks[view] = running or asyncio.create_task(self._send_images(view))
            elif running:
                running.cancel()

    async def _send_images(self, view: str) -> None:
        channel = self._channels["jpeg", view]
        window = self._windows[view] = SendWindow()
        mailbox = channel.join()
        try:
            while True:
                await window.wait()
                packet = await mailbox.take()
                window.send()
                header = _HEADER.pack(VIEWS.index(view), packet.index, packet.captured * 1000)
                await self._socket.send_bytes(header + packet.data)
        except ConnectionError:
            return  # the page has closed; `run` ends too
        finally:
            channel.leave(mailbox)

    async def _send_status(self) -> None:
        with suppress(ConnectionError):
            while True:
                origins = self._peer.origins() if self._peer else []
                await self._send({"status": self._status() | {"call": self._call, "origins": origins}})
                await asyncio.sleep(STATUS_PERIOD)

    async def _connect(self, offer: Any, views: Sequence[str]) -> dict[str, str]:
        if not isinstance(offer, str) or not views:
            return {"refused": "an offer is a string, for at least one view"}
        await self._hang_up()
        try:
            self._limit.enter()
        except CliprlError as error:
            return {"refused": str(error)}
        peer = self._peer = Peer([self._channels["vp8", view] for view in views])
        try:
            return {"answer": await peer.answer(offer, self._browser)}
        except CliprlError as error:
            await self._hang_up()
            return {"refused": str(error)}

    async def _hang_up(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            self._limit.leave()
            await peer.close()

    async def _send(self, value: dict[str, Any]) -> None:
        await self._socket.send_str(json_text(value))


def _views(wanted: Any) -> list[str]:
    """Return the known views in `wanted`; unknown ones are ignored."""
    return [view for view in VIEWS if isinstance(wanted, list) and view in wanted]


def _number(request: Mapping[str, Any], key: str) -> float | None:
    """Return the number under `key`, None if absent. Raises ValueError for other types."""
    value = request.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"'{key}' must be a number")
    return value
