"""Handlers that send images: snapshots, MJPEG streams and the WebSocket of a page."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath

from aiohttp import web

from cliprl.pipeline.web.connections import ConnectionPool
from cliprl.pipeline.web.http_helpers import ActiveCount, requested_view
from cliprl.pipeline.web.media.channels import Channel
from cliprl.pipeline.web.media.image_conversion import png
from cliprl.pipeline.web.media.rtc import PeerLimit
from cliprl.pipeline.web.session import MESSAGE_BYTES, ViewerSession
from cliprl.pipeline.web.status_json import ProgramInfo

# Snapshots that are encoded at once, and requests for snapshots that may wait.
_SNAPSHOTS, _SNAPSHOT_QUEUE = 2, 8
# Seconds without progress after which a viewer is disconnected.
_STALLED_S = 20.0
# Bytes of the send buffer of one MJPEG viewer: about two images.
_SEND_BUFFER = 1 << 17
_BOUNDARY = "picture"


class ImageRoutes:
    """Serves the displayed frames of `program` as images. `viewers` counts open pages and MJPEG streams."""

    def __init__(self, program: ProgramInfo, channels: Mapping[tuple[str, str], Channel], pool: ConnectionPool) -> None:
        self._program, self._channels, self._pool = program, channels, pool
        self._snapshots = asyncio.Semaphore(_SNAPSHOTS)
        self._snapshot_requests, self._streams = ActiveCount(), ActiveCount()
        self._peers = PeerLimit(pool.limits.rtc_handles)
        self._sessions: set[ViewerSession] = set()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these handlers."""
        return [
            web.get("/snapshot.png", self._snapshot),
            web.get("/stream.mjpg", self._mjpeg, allow_head=False),
            web.get("/ws", self._websocket, allow_head=False),
        ]

    @property
    def viewers(self) -> int:
        """Open pages and MJPEG streams."""
        return len(self._sessions) + self._streams.value

    async def close(self, application: web.Application) -> None:
        """Close the WebSockets of all pages."""
        for session in tuple(self._sessions):
            await session.close()

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        """Answer with the newest frame as PNG, in full size."""
        newest = self._program.broadcast.newest
        if newest is None:
            return web.Response(status=503, text="there is no image yet\n")
        view = requested_view(request)
        if self._snapshot_requests.value >= _SNAPSHOT_QUEUE:
            return web.Response(status=503, text="too many snapshots at once: try again\n")
        frame = newest.shared_overlaid if view == "overlay" else newest.shared_raw
        name = snapshot_name(self._program.info.name, view, newest.index)
        headers = {"Content-Type": "image/png", "Content-Disposition": f'attachment; filename="{name}"'}
        with self._snapshot_requests:
            async with self._snapshots:
                image = await asyncio.to_thread(png, frame)
        return web.Response(body=image, headers=headers)

    async def _mjpeg(self, request: web.Request) -> web.StreamResponse:
        """Send JPEG images until the client leaves. A client that reads slowly misses some."""
        channel = self._channels["jpeg", requested_view(request)]
        self._admit_viewer()
        response = web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}"})
        if (transport := request.transport) is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        await response.prepare(request)
        with self._streams:
            mailbox = channel.join()
            try:
                await response.write(f"--{_BOUNDARY}\r\n".encode())
                while True:
                    part = mjpeg_part((await mailbox.take()).data)
                    async with asyncio.timeout(_STALLED_S):
                        await response.write(part)
            except (TimeoutError, ConnectionError):
                if transport is not None:
                    transport.abort()
            finally:
                channel.leave(mailbox)
        return response

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        self._admit_viewer()
        response = web.WebSocketResponse(heartbeat=_STALLED_S, compress=False, max_msg_size=MESSAGE_BYTES)
        await response.prepare(request)
        browser = request.remote or "127.0.0.1"
        session = ViewerSession(
            response, self._channels, lambda: self._program.status_json(self.viewers), browser, self._peers
        )
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
        return response

    def _admit_viewer(self) -> None:
        """Start the playback of a file that waits for a viewer. Raises HTTPServiceUnavailable for one viewer too many."""
        if self.viewers >= (most := self._pool.limits.viewers):
            raise web.HTTPServiceUnavailable(text=f"there are {most} viewers already: close one\n")
        if self._program.playback is not None:
            self._program.playback.release()


def mjpeg_part(data: bytes) -> bytes:
    """Return one JPEG image as a part of an MJPEG stream, with the boundary after it: browsers display a complete part."""
    header = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    return header + data + f"\r\n--{_BOUNDARY}\r\n".encode()


def snapshot_name(source: str, view: str, index: int) -> str:
    """Return a file name made of the source's name, the view, the time now in UTC and the index of the frame."""
    stem = re.sub(r"[^\w.-]+", "_", PurePath(source.split("?")[0].rstrip("/:")).stem)[:40] or "stream"
    return f"{stem}_{view}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{index:06d}.png"
