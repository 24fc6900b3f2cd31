"""Access control: the viewer's page may send requests; from other machines a token is required.

Another site may link to the page and do nothing else: it can't embed it as an image, a script or a frame, or open a socket.
Every response carries a content policy: browsers load nothing from other servers and run only the viewer's script files.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from cliprl.pipeline.web.address import is_accepted_host
from cliprl.pipeline.web.assets import FILES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Paths that need no token: the health check, the login, and the program's own page files, which hold no data: a page that
# loads while the program restarts gets all of them, and then goes to the login.
OPEN_PATHS = frozenset({"/healthz", "/login"} | {f"/static/{name}" for name in FILES if not name.endswith(".html")})
# The Host header: a name, an IPv4 address or an IPv6 address in brackets, with an optional port.
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
    """Admits or refuses requests.

    `token` None: no token is required, because the server listens on loopback only. Otherwise a request needs the cookie
    that `login` sets in exchange for the token, or "Authorization: Bearer TOKEN". `proxy` is the origin, SCHEME://HOST with the
    port, that browsers send when they reach the page through a reverse proxy, which may pass on another Host.
    """

    def __init__(self, host: str, port: int, token: str | None, *, name: str = "", proxy: str = "") -> None:
        self.token = token
        self._host, self._name, self._proxy = host, name, proxy.lower()
        self._proxy_host = self._proxy.partition("://")[2]
        self._session = secrets.token_urlsafe(32)
        # Cookies are shared between ports; the name keeps two viewers on one machine apart.
        self.cookie = f"cliprl_{port}"

    def refusal(self, request: web.Request) -> str:
        """Return the reason why a request is refused even with a token; empty if it is not refused."""
        host = ", ".join(request.headers.getall("Host", []))
        if not self._is_ours(host):
            return f"the host '{host[:80]}' is not this server's: use its address"
        if not request.raw_path.startswith("/"):
            return "the request names a whole URL: name a path of this server"
        if site := _foreign_site(request, host, self._proxy):
            return f"requests from {site[:80]} are refused: use the viewer's own page"
        return ""

    def admits(self, request: web.Request) -> bool:
        """Return whether the request carries the token or the cookie, or none is required."""
        if self.token is None:
            return True
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        return same(request.cookies.get(self.cookie, ""), self._session) or (
            scheme.lower() == "bearer" and same(sent, self.token)
        )

    def login(self, sent: str, request: web.Request) -> web.Response | None:
        """Return the response that sets the cookie, over TLS for the proxy's page only if that has it; None for a wrong token."""
        if self.token is not None and not same(sent, self.token):
            return None
        answer = web.json_response({"ok": True})
        # Without a path the browser takes that of the request: a proxy may serve several viewers below prefixes.
        secure = self._proxy.startswith("https:") and request.headers.get("Origin", "").lower() == self._proxy
        answer.set_cookie(self.cookie, self._session, httponly=True, samesite="Strict", path="", secure=secure)
        return answer

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is not None and host.lower() == self._proxy_host:
            return True
        return match is not None and is_accepted_host(match[1], self._host, name=self._name)


def _foreign_site(request: web.Request, host: str, proxy: str) -> str:
    """Return the other site that a request comes from; empty for the viewer's page and for other programs.

    Browsers send Sec-Fetch-Site only to loopback and over TLS. They always send Origin, except with a plain GET, and
    usually Referer.
    """
    origin = request.headers.get("Origin")
    if origin is not None and not _is_same(origin, host, proxy):
        return f"'{origin}'"
    site = request.headers.get("Sec-Fetch-Site")
    reads = request.method in ("GET", "HEAD")
    if site == "same-origin" or (site == "none" and reads) or _opens_page(request):
        return ""
    if site is not None:
        return "other sites"
    referrer = request.headers.get("Referer")
    return "" if referrer is None or _is_same(referrer, host, proxy) else f"'{referrer}'"


def _opens_page(request: web.Request) -> bool:
    """Return whether a browser requests the page itself for a window, as when the user follows a link."""
    mode, target = request.headers.get("Sec-Fetch-Mode", "navigate"), request.headers.get("Sec-Fetch-Dest", "document")
    return request.method == "GET" and request.path == "/" and (mode, target) == ("navigate", "document")


def _is_same(url: str, host: str, proxy: str) -> bool:
    """Whether a page is the viewer's: at `host`, or at the origin `proxy`, if that host is not the proxy's."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    place = parts.netloc.lower()
    if proxy and place == proxy.partition("://")[2]:
        return f"{parts.scheme}://{place}" == proxy
    return parts.scheme in ("http", "https") and place == host.lower()


def same(sent: str, expected: str) -> bool:
    """Return whether two secrets are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(sent.encode("utf-8", "surrogatepass"), expected.encode())


def access_middleware(access: AccessControl, refuse: Handler) -> Middleware:
    """Return the middleware that applies `access`; `refuse` answers requests without the token."""

    @web.middleware
    async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
        if refusal := access.refusal(request):
            return web.Response(
                status=403, body=f"{refusal}\n".encode("ascii", "backslashreplace"), content_type="text/plain"
            )
        resource = request.match_info.route.resource
        is_open = resource is not None and resource.canonical in OPEN_PATHS
        return await (handler if is_open or access.admits(request) else refuse)(request)

    return check_access


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the content policy to every response, including errors and streams."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.popall("Server", None)
