"""Parts of requests, checked, and parts of answers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from aiohttp import web

from cliprl.pipeline.live.controls import quoted
from cliprl.pipeline.web.connections import ConnectionPool
from cliprl.pipeline.web.json_body import parse_object
from cliprl.pipeline.web.media.encoder_thread import VIEWS

BOUNDARY = b"picture"
_JSON = "application/json"


def part(data: bytes) -> bytes:
    """One picture, and the boundary after it: a browser shows a part only when it sees its end."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    return head + data + b"\r\n--" + BOUNDARY + b"\r\n"


def asked_view(request: web.Request) -> str:
    """The view that the request names, the overlay where it names none. Raises HTTPBadRequest."""
    view = request.query.get("view", VIEWS[0])
    if view not in VIEWS:
        raise web.HTTPBadRequest(text=f"unknown view {quoted(view)}: one of {', '.join(VIEWS)}\n")
    return view


async def asked_object(request: web.Request, pool: ConnectionPool) -> dict[str, Any]:
    """The request's JSON object. Any other type of content is refused: a form of another site could send it.

    Raises HTTPUnsupportedMediaType, HTTPRequestEntityTooLarge or HTTPBadRequest with {"error": LINE}.
    """
    if request.content_type != "application/json" or "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType(text=_error("send application/json, not compressed"), content_type=_JSON)
    try:
        if (charset := request.charset) is not None and charset.lower() not in ("utf-8", "utf8"):
            raise ValueError(f"the charset {quoted(charset)} is not for JSON: send UTF-8")
        data = await request.read()
        pool.begin(request)
        return parse_object(data)
    except (ValueError, web.RequestPayloadError) as error:
        line = str(error) if isinstance(error, ValueError) else "the body is broken: send JSON in UTF-8"
        raise bad_request(line) from None
    except ConnectionError:
        raise bad_request("the connection has ended before the body") from None


def bad_request(line: str) -> web.HTTPBadRequest:
    """A refusal of what a client sent, with {"error": `line`}."""
    return web.HTTPBadRequest(text=_error(line), content_type=_JSON)


def _error(line: str) -> str:
    return json.dumps({"error": line})


def snapshot_name(source: str, view: str, index: int) -> str:
    """A file name that tells the source, the view, when it was taken, and which picture it is."""
    stem = re.sub(r"[^\w.-]+", "_", PurePath(source.split("?")[0].rstrip("/:")).stem)[:40] or "stream"
    return f"{stem}_{view}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{index:06d}.png"
