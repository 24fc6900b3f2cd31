"""The viewer's web application: its routes, and the handlers of the page, of the state and of the controls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from prometheus_client import Histogram

from cliprl.engines import UsageError
from cliprl.pipeline.core.segmentation import Followed
from cliprl.pipeline.live.broadcast import SourceState
from cliprl.pipeline.live.controls import quoted
from cliprl.pipeline.live.follow_control import NOT_TRACKED, FollowControl
from cliprl.pipeline.sinks.labels.json_fields import describe_followed
from cliprl.pipeline.web.assets import Asset, load_assets
from cliprl.pipeline.web.auth import AccessControl, Handler, access_middleware, add_headers
from cliprl.pipeline.web.connections import ConnectionPool, tracking_middleware
from cliprl.pipeline.web.correction.routes import CorrectionRoutes
from cliprl.pipeline.web.http_helpers import ActiveCount, bad_request, json_object, json_refusals
from cliprl.pipeline.web.image_routes import ImageRoutes
from cliprl.pipeline.web.limits import LoginLimit
from cliprl.pipeline.web.media.channels import Channel
from cliprl.pipeline.web.metrics import CONTENT_TYPE, exposition
from cliprl.pipeline.web.session import MESSAGE_BYTES
from cliprl.pipeline.web.status_json import ProgramInfo, describe_settings

# Numbers in a request for a place.
_CORNERS = {"point": 2, "box": 4}
# Refusals of wrong tokens that may be in progress at once; each waits for this many seconds.
_REFUSALS, _REFUSAL_S = 8, 0.5


class Routes:
    """The request handlers of one viewer. `latency` is the histogram that `/metrics` reports."""

    def __init__(
        self,
        program: ProgramInfo,
        access: AccessControl,
        channels: Mapping[tuple[str, str], Channel],
        latency: Histogram,
        pool: ConnectionPool,
    ) -> None:
        self._program, self._access, self._channels = program, access, channels
        self._latency, self._pool = latency, pool
        self._refusals, self._login_limit = ActiveCount(), LoginLimit()
        self._images = ImageRoutes(program, channels, pool)
        self._assets = load_assets()

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(
            middlewares=[
                tracking_middleware(self._pool, self._access.admits),
                json_refusals,
                access_middleware(self._access, self._refuse_without_token),
            ],
            client_max_size=MESSAGE_BYTES,
        )
        application.on_response_prepare.append(add_headers)
        application.on_shutdown.append(self._images.close)
        scripts = {name: asset for name, asset in self._assets.items() if not name.endswith(".html")}
        application.add_routes(
            [
                web.get("/", _asset_handler(self._assets["viewer.html"])),
                *(web.get(f"/static/{name}", _asset_handler(asset)) for name, asset in scripts.items()),
                web.post("/login", self._login),
                web.get("/healthz", self._health),
                web.get("/metrics", self._metrics),
                web.get("/api/stream", self._stream),
                web.post("/api/controls", self._controls),
                web.post("/api/position", self._seek),
                web.post("/api/follow", self._follow),
                *self._images.routes(),
                *self._correction_routes(),
            ]
        )
        return application

    def _correction_routes(self) -> list[web.RouteDef]:
        if (corrections := self._program.corrections) is None:
            return []
        colors = [spec.color for spec in self._program.classes]
        return CorrectionRoutes(corrections, colors, self._pool).routes()

    async def _refuse_without_token(self, request: web.Request) -> web.StreamResponse:
        """Answer a request without the token: with the login page, or with a plain refusal."""
        if request.path == "/" and request.method == "GET":
            return self._assets["login.html"].response(request, status=401)
        return web.Response(status=401, text="a token is needed: open the address that the program has printed\n")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        values, peer = await json_object(request, self._pool), request.remote or ""
        if unknown := set(values) - {"token"}:
            raise bad_request(f"unknown key {quoted(min(unknown))}: send the token alone")
        token = values.get("token")
        # The right one before the limit: behind a proxy all peers are one, and a stranger could lock out the others.
        if (response := self._access.login(token if isinstance(token, str) else "", request)) is not None:
            return response
        if (wait := self._login_limit.wait(peer)) or self._refusals.value >= _REFUSALS:
            seconds = math.ceil(wait) or 1
            error = {"error": f"too many wrong tokens: try again in {seconds} s"}
            return web.json_response(error, status=429, headers={"Retry-After": str(seconds)})
        self._login_limit.count_failure(peer)
        with self._refusals:
            await asyncio.sleep(_REFUSAL_S)  # slows guessing down
        return web.json_response({"error": "that is not the token: copy it from the program's terminal"}, status=401)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        """Answer 200 while the source is live or connecting, 503 while it is behind, stalled, away or ended."""
        status = self._program.status()
        healthy = status.state in (SourceState.LIVE, SourceState.CONNECTING)
        behind = {} if status.behind_s is None else {"behind_s": round(status.behind_s, 3)}
        return web.json_response({"state": status.state.value, **behind}, status=200 if healthy else 503)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        program, channels = self._program, self._channels.values()
        body = exposition(program.broadcast, program.status(), self._latency, channels, self._images.viewers)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._program.describe())

    async def _controls(self, request: web.Request) -> web.StreamResponse:
        """Change settings, as in {"opacity": 0.5} or {"show": {NAME: false}}. Answers with all settings."""
        values = await json_object(request, self._pool)
        try:
            settings = self._program.controls.update(values)
        except UsageError as error:
            raise bad_request(str(error)) from None
        return web.json_response(describe_settings(settings))

    async def _seek(self, request: web.Request) -> web.StreamResponse:
        """Continue a file from another position, as in {"seconds": 12.5}; 0 replays it. A pause ends."""
        values, playback = await json_object(request, self._pool), self._program.playback
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

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """Follow an instrument: {"point": [x, y]}, {"box": [x0, y0, x1, y1]}, {"id": 2} or {"next": true}; {"id": null} ends it.

        Places are shares of the width and height of the image, 0..1. Answers with the state of the instrument.
        """
        values, follow = await json_object(request, self._pool), self._program.follow
        newest = self._program.broadcast.newest
        try:
            if follow is None:
                raise UsageError(NOT_TRACKED)
            followed = _choose(follow, values, newest.raw.rotation if newest else 0)
        except UsageError as error:
            raise bad_request(str(error)) from None
        return web.json_response({"followed": describe_followed(followed) if followed else None})


def _choose(follow: FollowControl, values: dict[str, Any], rotation: int) -> Followed | None:
    """Follow what a request names. Raises UsageError for another request, and if no instrument is there."""
    name = next(iter(values), "")
    value: Any = values.get(name)
    if len(values) == 1 and name in _CORNERS and _are_shares(value, _CORNERS[name]):
        return follow.choose_at(value, rotation)
    if len(values) == 1 and name == "id" and type(value) is int:
        return follow.choose(value)
    if values == {"next": True} and value is True:
        return follow.choose_next()
    if values == {"id": None}:
        follow.end()
        return None
    raise UsageError(
        f"{quoted(values)} names no instrument: send a point [x, y] or a box [x0, y0, x1, y1] in shares of 0 to 1, "
        "an id, or next: true"
    )


def _are_shares(value: Any, count: int) -> bool:
    """Return whether a value is a list of `count` numbers from 0 to 1."""
    is_list = isinstance(value, list) and len(value) == count
    return is_list and all(type(one) in (int, float) and 0 <= one <= 1 for one in value)


def _asset_handler(asset: Asset) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return asset.response(request)

    return handle
