"""What the server answers to which request."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from cliprl.engines import UsageError
from cliprl.pipeline.live.broadcast import SourceState
from cliprl.pipeline.live.controls import quoted
from cliprl.pipeline.web.assets import Asset, load_assets
from cliprl.pipeline.web.auth import AccessControl, Handler, add_headers, middleware
from cliprl.pipeline.web.connections import ConnectionPool, tracking
from cliprl.pipeline.web.http_helpers import BOUNDARY, asked_object, asked_view, bad_request, part, snapshot_name
from cliprl.pipeline.web.limits import LoginLimit
from cliprl.pipeline.web.media.channels import Channel
from cliprl.pipeline.web.media.encoder_thread import EncoderThread
from cliprl.pipeline.web.media.image_conversion import png
from cliprl.pipeline.web.media.rtc import PeerLimit
from cliprl.pipeline.web.metrics import CONTENT_TYPE, exposition
from cliprl.pipeline.web.session import ViewerSession
from cliprl.pipeline.web.status_json import ProgramInfo, describe_settings

# Snapshots that are made at once, and that may wait.
_SNAPSHOTS, _SNAPSHOT_QUEUE = 2, 8
# Wrong tokens that are answered at once; each answer takes half a second.
_LOGINS = 8
# A viewer that takes nothing for so many seconds is let go.
_STUCK = 20.0
# What may lie in the system's buffer for one MJPEG viewer: about two pictures.
_SEND_BUFFER = 1 << 17
_LARGEST_REQUEST = 1 << 16


class Routes:
    """The handlers of one viewer."""

    def __init__(
        self,
        program: ProgramInfo,
        gate: AccessControl,
        channels: dict[tuple[str, str], Channel],
        pump: EncoderThread,
        pool: ConnectionPool,
    ) -> None:
        self._program, self._gate, self._channels, self._pump, self._pool = program, gate, channels, pump, pool
        self._logins, self._login_limit = 0, LoginLimit()
        self._snapshots = asyncio.Semaphore(_SNAPSHOTS)
        self._snapshots_asked = 0
        self._peers = PeerLimit(pool.limits.rtc_handles)
        self._sessions: set[ViewerSession] = set()
        self._streams = 0
        self._assets = load_assets()

    def application(self) -> web.Application:
        """The server's application."""
        application = web.Application(
            middlewares=[tracking(self._pool, self._gate.admits), middleware(self._gate, self._unknown)],
            client_max_size=_LARGEST_REQUEST,
        )
        application.on_response_prepare.append(add_headers)
        application.on_shutdown.append(self._shut_down)
        application.add_routes(
            [
                web.get("/", self._page),
                *(web.get(f"/static/{n}", _serves(a)) for n, a in self._assets.items() if not n.endswith(".html")),
                web.post("/login", self._login),
                web.get("/healthz", self._health),
                web.get("/metrics", self._metrics),
                web.get("/stream.mjpg", self._mjpeg, allow_head=False),
                web.get("/snapshot.png", self._snapshot),
                web.get("/api/stream", self._describe),
                web.post("/api/controls", self._control),
                web.post("/api/position", self._seek),
                web.get("/ws", self._socket, allow_head=False),
            ]
        )
        return application

    @property
    def viewers(self) -> int:
        """Pages and streams that are open."""
        return len(self._sessions) + self._streams

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        """To those without a token: the page where it can be given, or a plain refusal."""
        if request.path == "/" and request.method == "GET":
            return self._assets["login.html"].response(request, status=401)
        return web.Response(status=401, text="a token is needed: open the address that the program has printed\n")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        values, peer = await asked_object(request, self._pool), request.remote or ""
        if unknown := set(values) - {"token"}:
            raise bad_request(f"unknown key {quoted(min(unknown))}: send the token alone")
        if (wait := self._login_limit.wait(peer)) or self._logins >= _LOGINS:
            error = {"error": f"too many wrong tokens: try again in {math.ceil(wait) or 1} s"}
            return web.json_response(error, status=429, headers={"Retry-After": str(math.ceil(wait) or 1)})
        given = values.get("token")
        if (answer := self._gate.login(given if isinstance(given, str) else "")) is not None:
            return answer
        self._login_limit.failed(peer)
        with _counted(self, "_logins"):
            await asyncio.sleep(0.5)  # guessing is hopeless anyway; this keeps it cheap for us
        return web.json_response({"error": "that is not the token: copy it from the program's terminal"}, status=401)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return self._assets["viewer.html"].response(request)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        """200 while pictures come in time (or are about to), 503 when the source is behind, away or has ended."""
        status = self._program.status()
        well = status.state in (SourceState.LIVE, SourceState.CONNECTING)
        late = {} if status.behind_s is None else {"behind_s": round(status.behind_s, 3)}
        return web.json_response({"state": status.state.value, **late}, status=200 if well else 503)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        program = self._program
        text = exposition(program.hub, program.status(), self._pump, self._channels.values(), self.viewers)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._program.describe())

    async def _control(self, request: web.Request) -> web.StreamResponse:
        """Change settings: {"opacity": 0.5}, {"show": {NAME: false}}, ...; answers with all of them."""
        values = await asked_object(request, self._pool)
        try:
            settings = self._program.controls.update(values)
        except UsageError as error:
            raise bad_request(str(error)) from None
        return web.json_response(describe_settings(settings))

    async def _seek(self, request: web.Request) -> web.StreamResponse:
        """Go on from another place of a file: {"seconds": 12.5}; 0 replays it. A pause ends."""
        values, playback = await asked_object(request, self._pool), self._program.playback
        seconds = values.get("seconds")
        if set(values) != {"seconds"} or isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise bad_request("send the position alone, as in {'seconds': 12.5}")
        try:
            if playback is None:
                raise UsageError("this input can't be sought in: it is live")
            playback.seek(seconds)
        except UsageError as error:
            raise bad_request(str(error)) from None
        self._program.controls.update({"paused": False})
        return web.json_response({"seconds": seconds})

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        """The newest picture as PNG, in full size."""
        newest = self._program.hub.newest
        if newest is None:
            return web.Response(status=503, text="there is no picture yet\n")
        view = asked_view(request)
        if self._snapshots_asked >= _SNAPSHOT_QUEUE:
            return web.Response(status=503, text="too many snapshots at once: try again\n")
        frame = newest.shared_overlaid if view == "overlay" else newest.shared_raw
        name = snapshot_name(self._program.info.name, view, newest.index)
        headers = {"Content-Type": "image/png", "Content-Disposition": f'attachment; filename="{name}"'}
        with _counted(self, "_snapshots_asked"):
            async with self._snapshots:
                picture = await asyncio.to_thread(png, frame)
        return web.Response(body=picture, headers=headers)

    async def _mjpeg(self, request: web.Request) -> web.StreamResponse:
        """Pictures one after the other, for anything that shows MJPEG; a slow reader misses some."""
        channel = self._channels["jpeg", asked_view(request)]
        self._welcome()
        boundary = BOUNDARY.decode()
        response = web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={boundary}"})
        if (transport := request.transport) is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        await response.prepare(request)
        with _counted(self, "_streams"):
            box = channel.join()
            try:
                await response.write(b"--" + BOUNDARY + b"\r\n")
                while True:
                    picture = part((await box.take()).data)
                    async with asyncio.timeout(_STUCK):
                        await response.write(picture)
            except (TimeoutError, ConnectionError):
                if transport is not None:
                    transport.abort()
            finally:
                channel.leave(box)
        return response

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self._welcome()
        response = web.WebSocketResponse(heartbeat=_STUCK, compress=False, max_msg_size=_LARGEST_REQUEST)
        await response.prepare(request)
        tell, browser = lambda: self._program.tell(self.viewers), request.remote or "127.0.0.1"
        session = ViewerSession(response, self._channels, tell, browser, self._peers)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
        return response

    async def _shut_down(self, application: web.Application) -> None:
        for session in tuple(self._sessions):
            await session.close()

    def _welcome(self) -> None:
        """Somebody watches now. Raises HTTPServiceUnavailable where too many do."""
        if self.viewers >= (most := self._pool.limits.viewers):
            raise web.HTTPServiceUnavailable(text=f"there are {most} viewers already: close one\n")
        if self._program.playback is not None:
            self._program.playback.release()


@contextmanager
def _counted(routes: Routes, name: str) -> Iterator[None]:
    """Count what goes on in an attribute of `routes`."""
    setattr(routes, name, getattr(routes, name) + 1)
    try:
        yield
    finally:
        setattr(routes, name, getattr(routes, name) - 1)


def _serves(asset: Asset) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        return asset.response(request)

    return serve
