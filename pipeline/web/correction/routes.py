"""Request handlers of the correction: hold a frame, correct it, step, and keep it. All answers are JSON, but for the image."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import cv2
from aiohttp import web

from cliprl.engines import CliprlError
from cliprl.pipeline.core.nv12 import upright_size
from cliprl.pipeline.correction.prompts import MaskPrompt
from cliprl.pipeline.correction.service import CorrectionService, Hold, NotHeldError
from cliprl.pipeline.live.controls import quoted
from cliprl.pipeline.sinks.frame_image import FrameConverter
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels
from cliprl.pipeline.sinks.labels.indexed_png import encode_png
from cliprl.pipeline.web.connections import ConnectionPool
from cliprl.pipeline.web.http_helpers import ActiveCount, bad_request, json_object

# Requests that may wait for the networks at once.
_QUEUE = 8
_QUALITY = 92
_LONGEST_AUTHOR = 60
_Result = TypeVar("_Result")


class CorrectionRoutes:
    """Serves `service`. Every request is checked before it reaches the service. `colors` are those of the overlay's classes."""

    def __init__(
        self, service: CorrectionService, colors: Sequence[tuple[int, int, int]], pool: ConnectionPool
    ) -> None:
        self._service, self._pool, self._active = service, pool, ActiveCount()
        self._palette = list(colors)
        self._opacity = [0 if spec.kind == "background" else 255 for spec in service.classes]
        self._ids = {spec.name: i for i, spec in enumerate(service.classes)}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these handlers."""
        handlers = {
            "hold": self._hold,
            "resume": self._resume,
            "prompt": self._prompt,
            "undo": self._undo,
            "step": self._step,
            "keep": self._keep,
            "release": self._release,
        }
        posts = [web.post(f"/api/correction/{name}", handler) for name, handler in handlers.items()]
        return [*posts, web.get("/api/correction/image", self._image), web.get("/api/corrections", self._kept)]

    async def _hold(self, request: web.Request) -> web.StreamResponse:
        """Hold the displayed frame. Answers with its state, as all of the handlers do."""
        await self._fields(request, {})
        return await self._answer(self._service.hold)

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        """Answer with the state of a frame that is held already: a page that was loaded again goes on with it."""
        fields = await self._fields(request, {"id": str})
        return await self._answer(lambda: self._service.find(fields["id"]))

    async def _prompt(self, request: web.Request) -> web.StreamResponse:
        """Correct by {"id": ID, "class": NAME, "point": [x, y], "positive": true} or {..., "box": [x0, y0, x1, y1]}."""
        fields = await self._fields(request, {"id": str, "class": str}, {"point": list, "positive": bool, "box": list})
        if ("box" in fields) == ("point" in fields) or ("box" in fields and "positive" in fields):
            raise bad_request("send a point, with positive true or false, or a box")
        name = fields["class"]
        if name not in self._ids:
            raise bad_request(f"unknown class {quoted(name)}: one of {', '.join(self._ids)}")
        corners = _numbers(fields["box"], 4) if "box" in fields else _numbers(fields["point"], 2)
        prompt = MaskPrompt(self._ids[name], corners, fields.get("positive", True))
        return await self._answer(lambda: self._service.prompt(fields["id"], prompt))

    async def _undo(self, request: web.Request) -> web.StreamResponse:
        """Take the last click or box back."""
        fields = await self._fields(request, {"id": str})
        return await self._answer(lambda: self._service.undo(fields["id"]))

    async def _step(self, request: web.Request) -> web.StreamResponse:
        """Go to the next frame ({"id": ID, "by": 1}), which follows the correction, or to the previous one (-1)."""
        fields = await self._fields(request, {"id": str, "by": int})
        if fields["by"] not in (1, -1):
            raise bad_request(f"'by' is {quoted(fields['by'])}: send 1 or -1")
        return await self._answer(lambda: self._service.step(fields["id"], fields["by"]))

    async def _keep(self, request: web.Request) -> web.StreamResponse:
        """Keep the correction as a new revision. Answers also with the revisions that others have kept meanwhile."""
        fields = await self._fields(request, {"id": str, "author": str})
        author = fields["author"].strip()
        if len(author) > _LONGEST_AUTHOR or not author.isprintable():
            raise bad_request(f"the author is {quoted(author)}: at most {_LONGEST_AUTHOR} printable characters")

        def keep() -> dict[str, Any]:
            hold, revision, others = self._service.keep(fields["id"], author)
            return self._state(hold) | {"kept": revision.to_json(), "meanwhile": [one.to_json() for one in others]}

        return web.json_response(await self._run(keep))

    async def _release(self, request: web.Request) -> web.StreamResponse:
        """Let the held frame go."""
        fields = await self._fields(request, {"id": str})
        await self._run(lambda: self._service.release(fields["id"]))
        return web.json_response({})

    async def _image(self, request: web.Request) -> web.StreamResponse:
        """Answer with the held frame as JPEG, without the overlay."""
        hold_id = request.query.get("id", "")

        def encode() -> bytes:
            frame = self._service.find(hold_id).held.frame
            height, width = upright_size(frame)
            image = FrameConverter().convert(frame, (frame.luma, frame.chroma), width, height)
            return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()

        return web.Response(body=await self._run(encode), content_type="image/jpeg")

    async def _kept(self, request: web.Request) -> web.StreamResponse:
        """Answer with all revisions in the folder, the oldest first."""

        def encode() -> str:
            return json.dumps({"revisions": [one.to_json() for one in self._service.store.revisions()]})

        return web.json_response(text=await self._run(encode))

    async def _answer(self, call: Callable[[], Hold]) -> web.StreamResponse:
        return web.json_response(await self._run(lambda: self._state(call())))

    async def _run(self, call: Callable[[], _Result]) -> _Result:
        """Run `call` on another thread. Errors of the service become status 400; of a frame let go, 410."""
        if self._active.value >= _QUEUE:
            raise web.HTTPServiceUnavailable(text="too many corrections at once: try again\n")
        try:
            with self._active:
                return await asyncio.to_thread(call)
        except NotHeldError as error:
            raise web.HTTPGone(text=f"{error}\n") from None
        except CliprlError as error:
            raise bad_request(str(error)) from None

    def _state(self, hold: Hold) -> dict[str, Any]:
        """Return a held frame as JSON, with its mask as PNG in base64: indexed colors, the background transparent."""
        draft = hold.draft  # once, with its frame: another request may go to another one meanwhile
        frame = draft.frame
        height, width = upright_size(frame)
        mask = encode_png(frame_labels(frame, draft.segmentation), self._palette, self._opacity)
        return {
            "id": hold.id,
            "name": hold.name,
            "seconds": round(hold.held.seconds, 3),
            "width": width,
            "height": height,
            "prompts": [one.to_json() | {"class": self._service.classes[one.class_id].name} for one in draft.prompts],
            "revision": hold.base,
            "follows": bool(hold.origin),
            "unkept": not draft.is_kept,
            "newer": [one.to_json() for one in self._service.newer(hold)],
            "mask": base64.b64encode(mask).decode(),
        }

    async def _fields(
        self, request: web.Request, needed: Mapping[str, type], optional: Mapping[str, type] | None = None
    ) -> dict[str, Any]:
        """Return the fields of a request. Raises HTTPBadRequest for a missing or unknown one, or one of another type."""
        values, known = await json_object(request, self._pool), {**needed, **(optional or {})}
        for name in needed:
            if name not in values:
                raise bad_request(f"'{name}' is missing: send {', '.join(needed)}")
        for name, value in values.items():
            if name not in known:
                raise bad_request(f"unknown key {quoted(name)}: send {', '.join(known) or 'an empty object'}")
            if type(value) is not known[name]:
                raise bad_request(f"'{name}' is {quoted(value)}: send a value of type {known[name].__name__}")
        return values


def _numbers(values: list[Any], count: int) -> tuple[float, ...]:
    """Return `count` finite numbers. Raises HTTPBadRequest for anything else."""
    fine = len(values) == count and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    if not fine:
        raise bad_request(f"{quoted(values)} are not {count} numbers: send x and y in pixels of the image")
    return tuple(float(value) for value in values)
