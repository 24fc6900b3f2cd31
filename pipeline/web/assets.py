"""The static files of the page: a fixed table, read once at the start. A request is never turned into a path on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from aiohttp import ETag, web

FILES = (
    "controls.js",
    "correction.css",
    "correction.js",
    "correction_canvas.js",
    "follow.js",
    "icon.svg",
    "keys.js",
    "link.js",
    "login.html",
    "login.js",
    "meter.js",
    "outcome.js",
    "plot.js",
    "post.js",
    "screen.js",
    "storage.js",
    "theme.js",
    "viewer.css",
    "viewer.html",
    "viewer.js",
)
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, its Content-Type header, and an entity tag made from its content."""

    body: bytes
    content_type: str
    etag: str

    def response(self, request: web.Request, status: int = 200) -> web.Response:
        """Return the file, or status 304 if the browser already has this version of a 200 answer."""
        known = {tag.value for tag in request.if_none_match or ()}
        headers = {"Content-Type": self.content_type, "Cache-Control": "no-cache"}
        if status == 200 and self.etag in known:
            response = web.Response(status=304, headers=headers)
        else:
            response = web.Response(body=self.body, status=status, headers=headers)
        if status == 200:
            response.etag = ETag(self.etag)
        return response


def load_assets() -> Mapping[str, Asset]:
    """Read all files of the table. Raises OSError if the installation lacks one."""
    folder = files("cliprl.pipeline.web") / "static"
    return {name: _asset(name, (folder / name).read_bytes()) for name in FILES}


def _asset(name: str, body: bytes) -> Asset:
    kind = _TYPES[PurePath(name).suffix]
    return Asset(body, f"{kind}; charset=utf-8", hashlib.sha256(body).hexdigest()[:32])
