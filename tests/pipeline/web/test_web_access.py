"""What other sites, other names and other paths get from the web viewer: nothing, whatever way they ask."""

from __future__ import annotations

import http.client
import socket
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the extra `live` is not installed")

from cliprl.pipeline.web.assets import FILES
from cliprl.pipeline.web.server import WebViewer

LIMIT = 30.0
PATHS = ("/stream.mjpg", "/snapshot.png", "/metrics", "/api/stream", "/healthz", "/ws", "/static/viewer.js", "/nothing")
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def ask(
    viewer: WebViewer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)) as connection:
        connection.request(method, path, "{}" if method == "POST" else None, headers or {})
        answer = connection.getresponse()
        return answer.status, {k.title(): v for k, v in answer.getheaders()}, answer.read()


def send(viewer: WebViewer, request: bytes) -> int:
    """The status of the answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=LIMIT) as connection:
        connection.sendall(request)
        return int(connection.makefile("rb").readline().split()[1])


def browser(site: str, mode: str = "navigate", target: str = "document") -> dict[str, str]:
    return {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": target}


@pytest.mark.parametrize(
    "escape", ["%2f", "%2F", "..%2f", "..%2f..%2f..%2f", "%2e%2e%2f", "..%5c", "/", "//", "%00", "./"]
)
@pytest.mark.parametrize("suffix", [".html", ".js", ".css", ".svg"])
def test_no_spelling_of_a_path_reaches_the_disk(viewer: WebViewer, tmp_path: Path, escape: str, suffix: str) -> None:
    secret = tmp_path / f"secret{suffix}"
    secret.write_text("secret")
    for name in (str(secret).lstrip("/"), str(secret).lstrip("/").replace("/", "%2f"), f"viewer{suffix}"):
        status, _, body = ask(viewer, f"/static/{escape}{name}")
        assert status == 404
        assert body != b"secret"


def test_page_files_are_all_listed_under_plain_names(viewer: WebViewer) -> None:
    folder = files("cliprl.pipeline.web") / "static"
    assert set(FILES) == {entry.name for entry in folder.iterdir() if entry.is_file()}
    for name in FILES:
        status, headers, body = ask(viewer, f"/static/{name}")
        assert status == (404 if name.endswith(".html") else 200)
        if status == 200:
            assert body == (folder / name).read_bytes()
            assert headers["X-Content-Type-Options"] == "nosniff"


def test_page_files_are_served_as_at_the_start(viewer: WebViewer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise AssertionError("a request has read the disk")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert ask(viewer, "/static/viewer.js")[0] == ask(viewer, "/")[0] == 200


def test_an_unchanged_file_is_not_sent_again(viewer: WebViewer) -> None:
    status, headers, _ = ask(viewer, "/static/viewer.css")
    assert status == 200
    assert headers["Cache-Control"] == "no-cache"
    status, again, body = ask(viewer, "/static/viewer.css", headers={"If-None-Match": headers["Etag"]})
    assert (status, body, again["Etag"]) == (304, b"", headers["Etag"])
    assert "Content-Security-Policy" in again
    assert ask(viewer, "/static/viewer.css", headers={"If-None-Match": '"other"'})[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unheard-of"])
def test_another_site_may_open_the_page_and_nothing_else(viewer: WebViewer, site: str) -> None:
    assert ask(viewer, "/", headers=browser(site))[0] == 200
    for path in PATHS:
        assert ask(viewer, path, headers=browser(site))[0] == 403
    for target in ("iframe", "frame", "object", "embed"):
        assert ask(viewer, "/", headers=browser(site, target=target))[0] == 403
    for mode, target in (("no-cors", "image"), ("no-cors", "script"), ("cors", "empty")):
        for path in ("/", *PATHS):
            assert ask(viewer, path, headers=browser(site, mode, target))[0] == 403
    for path in ("/", "/login", "/api/controls"):
        assert ask(viewer, path, "POST", browser(site))[0] == 403
    assert ask(viewer, "/ws", headers=UPGRADE | browser(site, "websocket", "empty"))[0] == 403


def test_typed_addresses_and_the_page_itself_are_accepted(viewer: WebViewer) -> None:
    for path in ("/", "/snapshot.png", "/healthz"):
        assert ask(viewer, path, headers=browser("none"))[0] == 200
        assert ask(viewer, path, headers=browser("same-origin", "cors", "empty"))[0] == 200
    own = {"Origin": f"http://127.0.0.1:{viewer.port}", "Content-Type": "application/json"}
    assert ask(viewer, "/api/controls", "POST", own | browser("same-origin", "cors", "empty"))[0] == 200
    assert ask(viewer, "/api/controls", "POST", {"Content-Type": "application/json"} | browser("none"))[0] == 403
    assert ask(viewer, "/ws", headers=UPGRADE | {"Origin": f"http://127.0.0.1:{viewer.port}"})[0] == 101


@pytest.mark.parametrize("referrer", ["http://evil.example/page", "http://127.0.0.1:1/", "http://[", "about:blank"])
def test_browser_without_site_header_is_checked_by_referrer(viewer: WebViewer, referrer: str) -> None:
    assert ask(viewer, "/", headers={"Referer": referrer})[0] == 200
    for path in PATHS:
        assert ask(viewer, path, headers={"Referer": referrer})[0] == 403
    assert ask(viewer, "/healthz", headers={"Referer": f"http://127.0.0.1:{viewer.port}/"})[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        b"user@127.0.0.1",
        b"127.0.0.1, evil.example",
        b"\xff\xfe",
        b"127.0.0.1:x",
        b"[::1]x",
        b"127.0.0.1#",
        b"\xed\xa0\x80",
    ],
)
def test_a_host_that_is_none_is_refused_in_one_line(viewer: WebViewer, host: bytes) -> None:
    assert send(viewer, b"GET /healthz HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") in (400, 403)


@pytest.mark.parametrize(
    "name", [b"Origin", b"Referer", b"Cookie", b"Authorization", b"If-None-Match", b"Sec-Fetch-Site"]
)
def test_header_that_is_no_text_causes_no_server_error(viewer: WebViewer, name: bytes) -> None:
    for value in (b"\xff\xfe", b"\xed\xa0\x80", b"\x01", b"bearer \xed\xb2\x80", b'"'):
        request = b"GET /snapshot.png HTTP/1.1\r\nHost: 127.0.0.1\r\n" + name + b": " + value + b"\r\n\r\n"
        assert send(viewer, request) in (200, 400, 403)


@pytest.mark.parametrize("target", [b"http://127.0.0.1/healthz", b"http://evil.example/healthz", b"*", b"healthz"])
def test_a_target_that_is_no_path_is_refused(viewer: WebViewer, target: bytes) -> None:
    assert send(viewer, b"GET " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") in (400, 403)


def test_two_hosts_in_one_request_are_refused(viewer: WebViewer) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
    assert send(viewer, request) in (400, 403)


def test_head_request_of_an_endless_stream_is_refused(viewer: WebViewer) -> None:
    for path in ("/stream.mjpg", "/ws"):
        assert ask(viewer, path, "HEAD")[0] == 405
