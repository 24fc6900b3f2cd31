"""Checked parts of requests, refusals, and a counter of what is in progress."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from cliprl.pipeline.live.controls import quoted
from cliprl.pipeline.web.connections import ConnectionPool
from cliprl.pipeline.web.json_body import parse_object
from cliprl.pipeline.web.media.encoder_thread import VIEWS
from cliprl.pipeline.web.session import MESSAGE_BYTES

_JSON = "application/json"
# Paths of programs and of the page's scripts, which read JSON.
_PROGRAM_PATHS = ("/api/", "/login")


class ActiveCount:
    """Counts entered `with` blocks that have not been left. For one event loop."""

    def __init__(self) -> None:
        self.value = 0

    def __enter__(self) -> None:
        self.value += 1

    def __exit__(self, *_: object) -> None:
        self.value -= 1


def requested_view(request: web.Request) -> str:
    """Return the view that a request names; by default the overlay. Raises HTTPBadRequest for an unknown view."""
    view = request.query.get("view", VIEWS[0])
    if view not in VIEWS:
        raise web.HTTPBadRequest(text=f"unknown view {quoted(view)}: one of {', '.join(VIEWS)}\n")
    return view


@web.middleware
async def json_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every refused request of a program with {"error": LINE}."""
    is_program = request.path.startswith(_PROGRAM_PATHS)
    try:
        response = await handler(request)
    except web.HTTPException as error:
        if not is_program or error.content_type == _JSON:
            raise
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.json_response(text=_error(_reason(error, request)), status=error.status, headers=allowed)
    if is_program and response.status >= 400 and isinstance(response, web.Response) and response.content_type != _JSON:
        return web.json_response(text=_error((response.text or "").strip()), status=response.status)
    return response


def _reason(error: web.HTTPException, request: web.Request) -> str:
    """Return one line for a refusal; aiohttp's own give no remedy."""
    path = quoted(request.path)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return f"the body has more than {MESSAGE_BYTES} bytes: send a smaller one"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{quoted(request.method)} is not for {path}: use {error.headers['Allow']}"
    if isinstance(error, web.HTTPNotFound):
        return f"there is no {path} here: check the path, and the options that the program was started with"
    return (error.text or error.reason).strip()


async def json_object(request: web.Request, pool: ConnectionPool) -> dict[str, Any]:
    """Return the JSON object in a request's body. Other content types are refused: a form of another site could send them.

    Raises HTTPUnsupportedMediaType, HTTPRequestEntityTooLarge or HTTPBadRequest.
    """
    if request.content_type != _JSON or "Content-Encoding" in request.headers:
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
    """Return the exception that answers a client with status 400 and {"error": `line`}."""
    return web.HTTPBadRequest(text=_error(line), content_type=_JSON)


def _error(line: str) -> str:
    return json.dumps({"error": line})
