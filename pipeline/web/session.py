"""One open page: what it is sent over its WebSocket, and what it asks for.

The page sends JSON objects: {"ping": number}, {"want": [VIEW, ...]} for JPEG pictures, {"ack": VIEW} when it has drawn one,
{"offer": SDP, "views": [VIEW, ...], "call": n} for WebRTC, {"hangup": true}.

It gets {"pong": number, "clock": ms}, {"status": {...}}, {"answer": SDP, "call": n}, {"refused": LINE, "call": n} (without
"call" where the message was none of these), and pictures: 16 bytes, little-endian (u32 number of the view, u32 index, f64
when it was captured, in ms of "clock"), then the JPEG.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from cliprl.engines import CliprlError
from cliprl.pipeline.web.json_body import parse_object
from cliprl.pipeline.web.media.channels import Channel
from cliprl.pipeline.web.media.encoder_thread import VIEWS
from cliprl.pipeline.web.media.rtc import Peer, PeerLimit

STATUS_PERIOD = 0.2
# Pictures on their way to a page at once. More would lie in buffers and grow old there.
IN_FLIGHT = 2
_HEADER = struct.Struct("<IId")


class ViewerSession:
    """Serves one WebSocket until it closes. `tell` gives the status; `browser` is the address that it comes from."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        channels: Mapping[tuple[str, str], Channel],
        tell: Any,
        browser: str,
        limit: PeerLimit,
    ) -> None:
        self._socket, self._channels, self._tell, self._browser = socket, channels, tell, browser
        self._limit = limit
        self._pictures: dict[str, asyncio.Task[None]] = {}
        self._allowed: dict[str, asyncio.BoundedSemaphore] = {}
        self._peer: Peer | None = None
        self._call: Any = None

    async def run(self) -> None:
        """Serve until the page goes."""
        telling = asyncio.create_task(self._keep_telling())
        try:
            async for message in self._socket:
                if message.type == WSMsgType.TEXT:
                    await self._hear(message.data)
                elif message.type == WSMsgType.BINARY:
                    await self._say({"refused": "send JSON as text"})
        finally:
            for task in (telling, *self._pictures.values()):
                task.cancel()
            await self._hang_up()

    async def close(self) -> None:
        """Tell the page that the program ends."""
        await self._socket.close(code=1001, message=b"the program ends")

    async def _hear(self, text: str) -> None:
        try:
            await self._obey(parse_object(text))
        except ValueError as error:
            await self._say({"refused": str(error)})

    async def _obey(self, request: dict[str, Any]) -> None:
        if "ping" in request:
            await self._say({"pong": _number(request, "ping"), "clock": self._tell()["clock"]})
        elif "ack" in request:
            if (allowed := self._allowed.get(str(request["ack"]))) is not None:
                with suppress(ValueError):  # more pictures drawn than were sent
                    allowed.release()
        elif "want" in request:
            self._want(_views(request["want"]))
        elif "offer" in request:
            self._call = _number(request, "call")
            answer = await self._connect(request["offer"], _views(request.get("views")))
            await self._say(answer | {"call": self._call})
        elif "hangup" in request:
            await self._hang_up()
        else:
            raise ValueError("a message holds ping, ack, want, offer or hangup")

    def _want(self, views: Sequence[str]) -> None:
        for view in VIEWS:
            running = self._pictures.pop(view, None)
            if view in views:
                self._pictures[view] = running or asyncio.create_task(self._send_pictures(view))
            elif running:
                running.cancel()

    async def _send_pictures(self, view: str) -> None:
        channel = self._channels["jpeg", view]
        allowed = self._allowed[view] = asyncio.BoundedSemaphore(IN_FLIGHT)
        box = channel.join()
        try:
            while True:
                await allowed.acquire()
                packet = await box.take()
                header = _HEADER.pack(VIEWS.index(view), packet.index, packet.captured * 1000)
                await self._socket.send_bytes(header + packet.data)
        except ConnectionError:
            return  # the page has gone; `run` sees it too
        finally:
            channel.leave(box)

    async def _keep_telling(self) -> None:
        with suppress(ConnectionError):
            while True:
                origins = self._peer.origins() if self._peer else []
                await self._say({"status": self._tell() | {"call": self._call, "origins": origins}})
                await asyncio.sleep(STATUS_PERIOD)

    async def _connect(self, offer: Any, views: Sequence[str]) -> dict[str, str]:
        if not isinstance(offer, str) or not views:
            return {"refused": "an offer is a text, for at least one view"}
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

    async def _say(self, value: dict[str, Any]) -> None:
        await self._socket.send_str(json.dumps(value, ensure_ascii=False))


def _views(wanted: Any) -> list[str]:
    """The views that are asked for; what is no view is passed over."""
    return [view for view in VIEWS if isinstance(wanted, list) and view in wanted]


def _number(request: Mapping[str, Any], key: str) -> float | None:
    """The number under `key`, None where there is none. Raises ValueError for anything else."""
    value = request.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"'{key}' is a number")
    return value
