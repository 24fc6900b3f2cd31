"""Who may talk to the web viewer: its own page, and beyond this machine only those who hold the token.

Another site may open the page, and nothing else: neither as a link, nor as a picture, a script, a frame or a socket.

Every answer carries a policy under which a browser loads nothing from elsewhere and runs no script that is not a file of ours.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from cliprl.pipeline.web.address import may_be_called

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# What answers without the token: the way in, what it looks like, and whether the picture lives.
OPEN_PATHS = frozenset({"/healthz", "/login", "/static/login.js", "/static/viewer.css", "/static/icon.svg"})
# A host as browsers write it: a name, an IPv4 address or an IPv6 address in brackets, and mostly a port.
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), display-capture=(), usb=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class AccessControl:
    """Lets requests in, or refuses them with a line that says why.

    `token` None: whoever reaches the server may use it (it listens on loopback only). Otherwise a request needs the cookie that
    `login` hands out for the token, or "Authorization: Bearer TOKEN".
    """

    def __init__(self, host: str, port: int, token: str | None, *, name: str = "") -> None:
        self.token = token
        self._host, self._name = host, name
        self._session = secrets.token_urlsafe(32)
        # Cookies don't tell ports apart: two viewers on one machine must not overwrite each other's.
        self.cookie = f"cliprl_{port}"

    def refusal(self, request: web.Request) -> str:
        """Why the request is refused whoever sends it; empty where it is not."""
        host = ", ".join(request.headers.getall("Host", []))
        if not self._is_ours(host):
            return f"the host '{host[:80]}' is not this server's: use its address"
        if not request.raw_path.startswith("/"):
            return "the request names a whole URL: name a path of this server"
        if site := _foreign_site(request, host):
            return f"requests from {site[:80]} are refused: use the viewer's own page"
        return ""

    def admits(self, request: web.Request) -> bool:
        """Whether the request may see what is not open to everybody: it holds the token, or none is needed."""
        if self.token is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return same(request.cookies.get(self.cookie, ""), self._session) or (
            scheme.lower() == "bearer" and same(given, self.token)
        )

    def login(self, given: str) -> web.Response | None:
        """The answer to the right token, with the cookie; None to a wrong one."""
        if self.token is not None and not same(given, self.token):
            return None
        answer = web.json_response({"ok": True})
        answer.set_cookie(self.cookie, self._session, httponly=True, samesite="Strict", path="/")
        return answer

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        return match is not None and may_be_called(match[1], self._host, name=self._name)


def _foreign_site(request: web.Request, host: str) -> str:
    """The other site that the request comes from, as far as the browser tells; empty for our own page and other programs.

    Browsers send Sec-Fetch-Site to loopback and over TLS only; the Origin of anything but a plain GET, and mostly a Referer,
    they send everywhere.
    """
    origin = request.headers.get("Origin")
    if origin is not None and not _is_same(origin, host):
        return f"'{origin}'"
    site = request.headers.get("Sec-Fetch-Site")
    reads = request.method in ("GET", "HEAD")
    if site == "same-origin" or (site == "none" and reads) or _opens_page(request):
        return ""
    if site is not None:
        return "other sites"
    referrer = request.headers.get("Referer")
    return "" if referrer is None or _is_same(referrer, host) else f"'{referrer}'"


def _opens_page(request: web.Request) -> bool:
    """Whether the request is a browser's for the page itself in a window, as when a link to it is followed."""
    mode, target = request.headers.get("Sec-Fetch-Mode", "navigate"), request.headers.get("Sec-Fetch-Dest", "document")
    return request.method == "GET" and request.path == "/" and (mode, target) == ("navigate", "document")


def _is_same(url: str, host: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def same(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def middleware(gate: AccessControl, unknown: Handler) -> Middleware:
    """The gate as aiohttp wants it; `unknown` answers those who have no token yet."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if refusal := gate.refusal(request):
            return web.Response(
                status=403, body=f"{refusal}\n".encode("ascii", "backslashreplace"), content_type="text/plain"
            )
        resource = request.match_info.route.resource
        is_open = resource is not None and resource.canonical in OPEN_PATHS
        return await (handler if is_open or gate.admits(request) else unknown)(request)

    return guard


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the policy on every answer, errors and streams too."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.popall("Server", None)
