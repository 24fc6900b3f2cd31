"""Parts of requests, checked, and parts of answers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from aiohttp import web

from cliprl.pipeline.web.pump import VIEWS

BOUNDARY = b"picture"


def part(data: bytes) -> bytes:
    """One picture, and the boundary after it: a browser shows a part only when it sees its end."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    return head + data + b"\r\n--" + BOUNDARY + b"\r\n"


def asked_view(request: web.Request) -> str:
    """The view that the request names, the overlay where it names none. Raises HTTPBadRequest."""
    view = request.query.get("view", VIEWS[0])
    if view not in VIEWS:
        raise web.HTTPBadRequest(text=f"unknown view '{view[:40]}': one of {', '.join(VIEWS)}\n")
    return view


async def asked_object(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Any other type of content is refused: a form of another site could send it."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send application/json\n")
    try:
        value = json.loads(await request.text())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise web.HTTPBadRequest(text="send a JSON object\n")
    return value


def snapshot_name(source: str, view: str, index: int) -> str:
    """A file name that tells the source, the view, when it was taken, and which picture it is."""
    stem = re.sub(r"[^\w.-]+", "_", PurePath(source.split("?")[0].rstrip("/:")).stem)[:40] or "stream"
    return f"{stem}_{view}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{index:06d}.png"
