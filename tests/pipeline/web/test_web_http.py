"""The web viewer's server over real sockets: who is let in, what is said, and that no client can hold up another."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from prometheus_text import metric_samples, metric_types
from webplayer import CLASSES, Player, serve, tracked

from cliprl.engines import UsageError
from cliprl.pipeline.live.broadcast import Freshness, SourceState
from cliprl.pipeline.live.follow_control import FollowControl

pytest.importorskip("aiohttp", reason="the extra `live` is not installed")

import aiohttp

from cliprl.pipeline.web.address import Address, is_accepted_host, is_loopback
from cliprl.pipeline.web.assets import FILES
from cliprl.pipeline.web.server import WebViewer
from cliprl.pipeline.web.session import SendWindow

Headers = dict[str, str]
ANY = Address("127.0.0.1", 0, True)
# Seconds after which a test gives up waiting for what has to come.
LIMIT = 30.0


@pytest.fixture(scope="module")
def guarded(player: Player) -> Iterator[WebViewer]:
    with serve(player, "0.0.0.0") as running:
        yield running


def ask(
    viewer: WebViewer, path: str, method: str = "GET", body: object = None, headers: Headers | None = None
) -> tuple[int, Headers, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)) as connection:
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), kind | (headers or {}))
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


class Stream:
    """An MJPEG client that speaks to the socket itself."""

    def __init__(self, viewer: WebViewer, view: str = "overlay") -> None:
        self.socket = socket.create_connection(("127.0.0.1", viewer.port), timeout=LIMIT)
        self.socket.sendall(f"GET /stream.mjpg?view={view} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        self.file = self.socket.makefile("rb")

    def image(self) -> np.ndarray:
        """The next whole picture, RGB."""
        length = 0
        while not length:
            if match := re.match(rb"Content-Length: (\d+)", self.file.readline()):
                length = int(match[1])
        while self.file.readline().strip():
            pass
        data = b""
        while len(data) < length:  # parts are carried in chunks, whose sizes are not part of the picture
            data += self._rest(length - len(data))
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def _rest(self, length: int) -> bytes:
        return self.file.read(length)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1", 8088, False)),
        ("9000", ("127.0.0.1", 9000, True)),
        (":9000", ("127.0.0.1", 9000, True)),
        ("0.0.0.0", ("0.0.0.0", 8088, False)),
        ("0.0.0.0:80", ("0.0.0.0", 80, True)),
        ("[::1]:81", ("::1", 81, True)),
        ("[::1]", ("::1", 8088, False)),
        ("localhost:82", ("localhost", 82, True)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int, bool]) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.fixed) == expected


@pytest.mark.parametrize("text", ["host:", "host:port", ":70000", "::1", "a:b:c", "host:²"])
def test_an_address_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT") as refused:
        Address.parse(text)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_and_interfaces_are_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {
        "six": [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 0, 0, 0))],
        "both": [(socket.AF_INET6, 0, 0, "", ("::1", 0, 0, 0)), (socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))],
        "fe80::1%eth0": [(socket.AF_INET6, 0, 0, "", ("fe80::1", 0, 0, 2))],
    }
    asked = list[object]()

    def listening(place: object, **kind: object) -> socket.socket:
        asked.append((place, kind["family"]))
        return socket.socket()

    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: places[host])
    monkeypatch.setattr(socket, "create_server", listening)
    for host in places:
        Address(host, 0).listen().close()
    assert asked == [
        (("::1", 0, 0, 0), socket.AF_INET6),
        (("127.0.0.1", 0), socket.AF_INET),
        (("fe80::1", 0, 0, 2), socket.AF_INET6),
    ]


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match=r"'nowhere\.invalid': no such host; write HOST:PORT"):
        Address("nowhere.invalid", 0).listen()


def test_taken_port_is_error_if_chosen_else_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="taken"):
            Address("127.0.0.1", port, True).listen()
        with Address("127.0.0.1", port).listen() as other:
            assert other.getsockname()[1] != port


@pytest.mark.parametrize(
    ("host", "listening", "fine"),
    [
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("[::1]", "::1", True),
        ("evil.example", "127.0.0.1", False),
        ("192.168.1.5", "127.0.0.1", False),
        ("192.168.1.5", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("127.0.0.1.evil.example", "0.0.0.0", False),
        ("", "127.0.0.1", False),
    ],
)
def test_who_is_accepted_host_what(host: str, listening: str, fine: bool) -> None:
    assert is_accepted_host(host, listening) is fine


def test_only_this_machine_counts_as_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example"))


def test_every_answer_carries_the_policy(viewer: WebViewer) -> None:
    for path in ("/", "/static/viewer.js", "/api/stream", "/snapshot.png", "/nothing", "/metrics", "/healthz"):
        _, headers, _ = ask(viewer, path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "camera=()" in headers["Permissions-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers


def test_the_page_names_no_other_place_and_holds_no_script(viewer: WebViewer) -> None:
    for path in ("/", "/static/viewer.css", "/static/viewer.js", "/static/link.js"):
        text = ask(viewer, path)[2].decode()
        assert not re.search(r"(?:https?:)?//[\w.]+\.\w", text.replace("http://www.w3.org/2000/svg", ""))
    page = ask(viewer, "/")[2].decode()
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|javascript:", page)


@pytest.mark.parametrize(
    "path", ["/static/../viewer.py", "/static/%2e%2e/viewer.py", "/static/viewer.py", "/static/.."]
)
def test_no_other_file_is_served(viewer: WebViewer, path: str) -> None:
    assert ask(viewer, path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8088", "192.168.1.2", "", "a b", "[", "127.0.0.1.evil.example"]
)
def test_a_hostile_host_is_refused(viewer: WebViewer, host: str) -> None:
    status, headers, body = ask(viewer, "/", headers={"Host": host})
    assert status in (400, 403)
    if status == 403:
        assert "Content-Security-Policy" in headers
        assert b"host" in body


def test_a_hostile_origin_changes_nothing(viewer: WebViewer, player: Player) -> None:
    before = player.controls.settings
    own = f"127.0.0.1:{viewer.port}"
    for origin in ("http://evil.example", "null", f"http://localhost:{viewer.port}", f"http://{own}.evil.example"):
        headers = {"Origin": origin}
        assert ask(viewer, "/api/controls", "POST", {"opacity": 0.9}, headers)[0] == 403
    assert ask(viewer, "/api/controls", "POST", {"opacity": 0.9}, {"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(viewer, "/stream.mjpg", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})[0] == 403
    assert player.controls.settings == before
    assert ask(viewer, "/api/controls", "POST", {"opacity": 0.4}, {"Origin": f"http://{own}"})[0] == 200


def test_a_hostile_origin_gets_no_web_socket(viewer: WebViewer) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert ask(viewer, "/ws", headers=upgrade | {"Origin": "http://evil.example"})[0] == 403


def test_a_form_of_another_site_can_change_nothing(viewer: WebViewer) -> None:
    headers = {"Content-Type": "text/plain"}
    assert ask(viewer, "/api/controls", "POST", {"opacity": 0.9}, headers)[0] == 415


def test_on_loopback_there_is_no_token(viewer: WebViewer) -> None:
    assert viewer.token is None
    assert viewer.url == f"http://127.0.0.1:{viewer.port}/"
    assert ask(viewer, "/api/stream")[0] == 200


def test_beyond_loopback_nothing_is_shown_without_the_token(guarded: WebViewer, player: Player) -> None:
    assert guarded.token is not None
    assert guarded.url.endswith(f"/#token={guarded.token}")
    for path in ("/stream.mjpg", "/snapshot.png", "/api/stream", "/metrics", "/ws", "/nothing"):
        status, _, body = ask(guarded, path)
        assert status == 401
        assert b"token" in body
    assert ask(guarded, "/api/controls", "POST", {"opacity": 0.9})[0] == 401
    for name in FILES:  # a page whose program was started again can load the rest and go to the login
        assert ask(guarded, f"/static/{name}")[0] == (401 if name.endswith(".html") else 200)
    assert player.controls.settings.opacity != 0.9
    status, headers, page = ask(guarded, "/")
    assert status == 401
    assert "text/html" in headers["Content-Type"]
    assert b"viewer.js" not in page
    assert ask(guarded, "/healthz")[0] == 200


def test_token_becomes_cookie_hidden_from_scripts_and_other_sites(guarded: WebViewer) -> None:
    assert guarded.token is not None
    for wrong in ("", "x", guarded.token[:-1], guarded.token + "x", "ü", 7, None):
        assert ask(guarded, "/login", "POST", {"token": wrong})[0] == 401
        break_in = {"Cookie": f"cliprl_{guarded.port}={'x' if wrong in ('', 'ü') else wrong}"}
        assert ask(guarded, "/api/stream", headers=break_in)[0] == 401
    status, headers, _ = ask(guarded, "/login", "POST", {"token": guarded.token})
    assert status == 200
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert guarded.token not in cookie
    for given in ({"Cookie": cookie.split(";")[0]}, {"Authorization": f"Bearer {guarded.token}"}):
        assert ask(guarded, "/", headers=given)[0] == 200
        assert ask(guarded, "/metrics", headers=given)[0] == 200
    assert ask(guarded, "/metrics", headers={"Authorization": f"Bearer {guarded.token}x"})[0] == 401


def test_the_stream_is_described_without_its_password(viewer: WebViewer) -> None:
    told = json.loads(ask(viewer, "/api/stream")[2])
    assert told["stream"]["name"] == "rtsp://***@camera/live"
    assert [spec["name"] for spec in told["classes"]] == ["shaft", "kidney"]
    assert told["network"] == "test"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"opacity": 2}, "2"),
        ({"opacity": "much"}, "much"),
        ({"colour": 1}, "colour"),
        ({"show": {"spleen": False}}, "spleen"),
        ({"hidden": "shaft"}, "hidden"),
        ({"contours": "yes"}, "contours"),
        ({"snapshots": 3}, "snapshots"),
    ],
)
def test_a_bad_control_is_one_line_and_changes_nothing(
    viewer: WebViewer, player: Player, body: dict[str, object], word: str
) -> None:
    before = player.controls.settings
    status, _, answer = ask(viewer, "/api/controls", "POST", body)
    assert status == 400
    assert word in json.loads(answer)["error"]
    assert player.controls.settings == before


def test_choices_of_an_instrument_are_checked() -> None:
    follow = FollowControl()
    with Player(tracked(set()), follow=follow) as player, serve(player) as viewer:
        player.broadcast.wait_newer(-1, LIMIT)
        bad: tuple[dict[str, object], ...] = (
            {},
            {"name": 1},
            {"point": [0.5]},
            {"point": [0.5, 1.5]},
            {"point": [True, 0]},
            {"box": [0, 0, 1]},
            {"point": [0.1, 0.4], "id": 1},
            {"id": "2"},
            {"id": True},
            {"id": 3},
            {"next": 1},
            {"next": False},
        )
        for body in bad:
            status, _, answer = ask(viewer, "/api/follow", "POST", body)
            assert status == 400, body
            assert "\n" not in json.loads(answer)["error"]
        for headers, refusal in (({"Sec-Fetch-Site": "cross-site"}, 403), ({"Content-Type": "text/plain"}, 415)):
            assert ask(viewer, "/api/follow", "POST", {"next": True}, headers)[0] == refusal
        assert follow.choice is None
        for choice in ({"id": 2}, {"point": [0.8, 0.4]}, {"box": [0.6, 0.1, 0.9, 0.9]}):
            answer = ask(viewer, "/api/follow", "POST", choice)[2]
            assert json.loads(answer) == {"followed": {"state": "following", "id": 2}}
        assert json.loads(ask(viewer, "/api/follow", "POST", {"id": None})[2]) == {"followed": None}


def test_following_needs_tracking_and_the_token(viewer: WebViewer, guarded: WebViewer) -> None:
    status, _, answer = ask(viewer, "/api/follow", "POST", {"next": True})
    assert (status, json.loads(answer)["error"]) == (400, "instruments are not tracked: start the program with --ids")
    assert ask(guarded, "/api/follow", "POST", {"next": True})[0] == 401


@pytest.mark.parametrize("body", [[1], "text", None])
def test_a_request_that_is_no_object_is_refused(viewer: WebViewer, body: object) -> None:
    assert ask(viewer, "/api/controls", "POST", body if body is not None else [])[0] == 400


def test_a_huge_request_is_refused(viewer: WebViewer) -> None:
    assert ask(viewer, "/api/controls", "POST", {"hidden": ["x" * 100_000]})[0] == 413


@pytest.mark.parametrize(
    ("path", "method", "body", "headers", "status", "words"),
    [
        ("/api/controls", "POST", {"hidden": ["x" * 100_000]}, {}, 413, "more than 65536 bytes: send a smaller one"),
        ("/login", "POST", {"token": "x" * 100_000}, {}, 413, "more than 65536 bytes: send a smaller one"),
        ("/api/controls", "GET", None, {}, 405, "'GET' is not for '/api/controls': use POST"),
        ("/api/stream", "PUT", {}, {}, 405, "use GET,HEAD"),
        ("/api/correction/hold", "POST", {}, {}, 404, "there is no '/api/correction/hold' here"),
        ("/api/%E2%82%AC%0A%3Cb%3E", "GET", None, {}, 404, "there is no '/api/"),
        ("/api/stream", "GET", None, {"Host": "evil.example"}, 403, "not this server's: use its address"),
        ("/api/controls", "POST", {}, {"Origin": "http://evil.example"}, 403, "use the viewer's own page"),
        ("/api/controls", "POST", {}, {"Content-Type": "text/plain"}, 415, "send application/json"),
    ],
)
def test_every_refusal_of_a_program_is_json(
    viewer: WebViewer, path: str, method: str, body: object, headers: Headers, status: int, words: str
) -> None:
    found, kinds, answer = ask(viewer, path, method, body, headers)
    assert (found, kinds["Content-Type"]) == (status, "application/json; charset=utf-8")
    line = json.loads(answer)["error"]
    assert words in line
    assert line == line.strip()
    assert "\n" not in line


def test_a_program_without_the_token_is_refused_in_json(guarded: WebViewer) -> None:
    for method, path, body in (("GET", "/api/stream", None), ("POST", "/api/controls", {}), ("GET", "/api/x", None)):
        status, _, answer = ask(guarded, path, method, body)
        assert (status, json.loads(answer)["error"][:17]) == (401, "a token is needed")


@pytest.mark.parametrize("path", ["/stream.mjpg", "/snapshot.png"])
def test_a_view_that_is_none_is_refused_in_one_answer(viewer: WebViewer, path: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", viewer.port), timeout=LIMIT)) as client:
        client.sendall(f"GET {path}?view=x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        with client.makefile("rb") as file:
            answer = file.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"unknown view 'x': one of overlay, raw" in answer


def test_controls_change_what_is_shown(viewer: WebViewer, player: Player) -> None:
    with closing(Stream(viewer)) as overlay, closing(Stream(viewer, "raw")) as raw:
        assert np.abs(raw.image()[100, 50].astype(int) - 110 * 1.1644 + 16 * 1.1644).max() < 4
        wait_for(lambda: overlay.image()[100, 50], lambda rgb: rgb[1] > rgb[0] + 50)
        ask(viewer, "/api/controls", "POST", {"show": {"shaft": False}})
        wait_for(lambda: overlay.image()[100, 50], lambda rgb: abs(int(rgb[1]) - int(rgb[0])) < 4)
        assert overlay.image()[100, 260, 0] > overlay.image()[100, 260, 2] + 50  # the kidney is still there
        ask(viewer, "/api/controls", "POST", {"opacity": 0, "show": {"shaft": True}})
        wait_for(lambda: overlay.image()[100, 260], lambda rgb: abs(int(rgb[0]) - int(rgb[2])) < 4)
    ask(viewer, "/api/controls", "POST", {"opacity": 0.4})


def wait_for(read: object, fine: object) -> None:
    deadline = time.monotonic() + LIMIT
    while not fine(value := read()):  # type: ignore[operator]
        assert time.monotonic() < deadline, value


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)


def test_snapshot_has_full_size_and_correct_colors(viewer: WebViewer) -> None:
    for view in ("overlay", "raw"):
        status, headers, data = ask(viewer, f"/snapshot.png?view={view}")
        assert status == 200
        assert re.search(rf'filename="live_{view}_\d+T\d+Z_\d+\.png"', headers["Content-Disposition"])
        assert decoded(data).shape == (240, 320, 3)
    grey = (110 - 16) * 255 / 219
    assert np.abs(decoded(data)[100, 160] - grey).max() <= 1
    for place, spec in ((50, CLASSES[1]), (260, CLASSES[2])):
        expected = np.array(spec.color) * 0.4 + grey * 0.6
        wait_for(
            lambda: decoded(ask(viewer, "/snapshot.png")[2]),
            lambda p, x=place, e=expected: np.abs(p[100, x] - e).max() <= 3,
        )
    assert ask(viewer, "/snapshot.png?view=else")[0] == 400


def test_health_follows_the_source() -> None:
    with Player() as player, serve(player) as viewer:
        assert ask(viewer, "/healthz")[0] == 200
        player.broadcast.wait_newer(-1, LIMIT)
        for state, status in [
            (SourceState.LIVE, 200),
            (SourceState.STALLED, 503),
            (SourceState.RECONNECTING, 503),
            (SourceState.LIVE, 200),
        ]:
            player.turn(state)
            wait_for(lambda: ask(viewer, "/healthz"), lambda got, want=status: got[0] == want)
            wait_for(lambda: ask(viewer, "/healthz"), lambda got, s=state: json.loads(got[2])["state"] == s)
        player.close()
        assert ask(viewer, "/healthz")[0] == 503
        assert json.loads(ask(viewer, "/healthz")[2]) == {"state": "ended"}


def test_metrics_are_in_prometheus_form_and_true(viewer: WebViewer, player: Player) -> None:
    wait_for(
        lambda: ask(viewer, "/metrics")[2],
        lambda text: metric_samples(text)["cliprl_display_latency_seconds_count"] > 0,
    )
    before = player.broadcast.newest
    _, headers, body = ask(viewer, "/metrics")
    after = player.broadcast.newest
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = metric_samples(body)
    assert before is not None
    assert after is not None
    assert before.index <= samples["cliprl_frames_displayed_total"] - 1 <= after.index
    assert samples['cliprl_source_state{state="live"}'] == 1
    assert samples['cliprl_source_state{state="stalled"}'] == 0
    buckets = [value for name, value in samples.items() if "latency_seconds_bucket" in name]
    assert buckets == sorted(buckets)
    assert buckets[-1] == samples["cliprl_display_latency_seconds_count"] > 0
    assert {"cliprl_mask_age_seconds", "cliprl_frames_dropped_total", "cliprl_reconnections_total"} <= set(samples)
    assert b"_created" not in body


def test_metric_names_and_types_are_those_that_dashboards_use(viewer: WebViewer) -> None:
    types = metric_types(ask(viewer, "/metrics")[2])
    counters = "frames_displayed frames_dropped frames_skipped reconnections segmenter_restarts recording_frames"
    counters += " recording_frames_missed recording_faults web_pictures_sent web_pictures_skipped"
    gauges = "display_fps picture_age_seconds mask_age_seconds source_state mask_state recording recording_state"
    gauges += " out_of_body web_viewers"
    expected = {f"cliprl_{name}": "counter" for name in counters.split()}
    expected |= {f"cliprl_{name}": "gauge" for name in gauges.split()}
    assert types == expected | {"cliprl_display_latency_seconds": "histogram"}
    readme = (Path(__file__).resolve().parents[3] / "pipeline" / "web" / "README.md").read_text(encoding="utf-8")
    for name, kind in types.items():
        assert f"`{name.removeprefix('cliprl_')}{'_total' if kind == 'counter' else ''}`" in readme, name


def test_without_a_mask_its_age_is_no_number(player: Player, viewer: WebViewer) -> None:
    player.mask = Freshness.OFF
    try:
        wait_for(lambda: ask(viewer, "/metrics")[2], lambda text: b"mask_age_seconds NaN" in text)
    finally:
        player.mask = Freshness.FRESH


def test_one_that_never_reads_harms_none_of_ten(viewer: WebViewer) -> None:
    """Nine readers go on getting new pictures while a tenth has long stopped reading."""
    with ExitStack() as opened:
        stuck = opened.enter_context(closing(Stream(viewer)))
        stuck.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        streams = [opened.enter_context(closing(Stream(viewer))) for _ in range(9)]
        for _ in range(30):
            assert all(stream.image().shape == (240, 320, 3) for stream in streams)
        # The one that is stuck has filled what lies between, and misses pictures from then on; the others still get theirs.
        skipped = 'cliprl_web_pictures_skipped_total{kind="jpeg",view="overlay"}'
        wait_for(lambda: _sample(viewer, skipped), lambda missed: missed > 0)
        for _ in range(10):
            assert all(stream.image().shape == (240, 320, 3) for stream in streams)
    wait_for(lambda: ask(viewer, "/metrics")[2], lambda text: metric_samples(text)["cliprl_web_viewers"] == 0)


def _sample(viewer: WebViewer, name: str) -> float:
    lines = ask(viewer, "/metrics")[2].decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_viewer_that_leaves_during_an_image_is_forgotten(viewer: WebViewer) -> None:
    stream = Stream(viewer)
    stream.image()
    stream.file.read(100)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a farewell
    stream.close()
    wait_for(lambda: ask(viewer, "/metrics")[2], lambda text: metric_samples(text)["cliprl_web_viewers"] == 0)
    with closing(Stream(viewer)) as another:
        another.image()


def test_closing_ends_streams_threads_and_the_port() -> None:
    before = threading.active_count()
    with Player() as player:
        viewer = serve(player)
        stream = Stream(viewer)
        stream.image()
        viewer.close()
        viewer.close()
        with pytest.raises(OSError):  # noqa: PT011 - whatever the system calls it
            socket.create_connection(("127.0.0.1", viewer.port), timeout=1).close()
        stream.close()
    assert threading.active_count() <= before


def test_webrtc_serves_another_implementation_on_loopback_only(viewer: WebViewer) -> None:
    aiortc = pytest.importorskip("aiortc", reason="the extra `live` is not installed")

    async def watch() -> tuple[str, object]:
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{viewer.port}/ws") as page:
            await page.send_json({"offer": peer.localDescription.sdp, "views": ["overlay"], "call": 7})
            while (message := await page.receive_json()).get("call") != 7:
                pass
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(message["answer"], "answer"))
            image = await asyncio.wait_for(peer.getReceivers()[0].track.recv(), LIMIT)
            await peer.close()
        return message["answer"], image.to_ndarray(format="rgb24")

    answer, image = asyncio.run(watch())
    variants = re.findall(r"a=candidate:\S+ \d udp \d+ (\S+)", answer)
    assert variants
    assert set(variants) == {"127.0.0.1"}
    assert image.shape == (240, 320, 3)
    assert int(image[100, 50, 1]) > int(image[100, 50, 0]) + 50


@pytest.mark.parametrize(
    "message", ["no JSON", "[]", '{"offer": "v=0"}', '{"want": 3}', '{"ack": []}', '{"offer": 1, "views": {}}']
)
def test_nonsense_on_the_web_socket_harms_nobody(viewer: WebViewer, message: str) -> None:
    async def talk() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{viewer.port}/ws") as page:
            await page.send_str(message)
            await page.send_json({"ping": 5})
            while (await page.receive_json(timeout=LIMIT)).get("pong") != 5:
                pass

    asyncio.run(talk())


def test_status_names_files_whose_names_are_not_utf_8(viewer: WebViewer, player: Player) -> None:
    """Such as the folder of a recording that fails: its name in a note must not end the status."""
    player.note = "can't record in 'op\udce9ration': free some space"

    async def talk() -> str:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{viewer.port}/ws") as page:
            while True:
                message = await page.receive_json(timeout=LIMIT)
                if (note := message.get("status", {}).get("note")) and "op" in note:
                    return str(note)

    try:
        assert asyncio.run(talk()) == r"can't record in 'op\xe9ration': free some space"
    finally:
        player.note = ""


def test_one_slow_image_at_a_time_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("cliprl.pipeline.web.session.time", SimpleNamespace(monotonic=lambda: now))

    async def sent(seconds: float) -> int:
        """The images that may be sent before an answer, after one that took this long."""
        nonlocal now
        window = SendWindow()
        window.acknowledge()  # of none
        window.send()
        now += seconds
        window.acknowledge()
        for count in range(5):
            waiting = asyncio.ensure_future(window.wait())
            await asyncio.sleep(0)
            if not waiting.done():
                window.acknowledge()
                await waiting
                return count
            window.send()
        return 5

    assert [asyncio.run(sent(seconds)) for seconds in (0.01, 2.0)] == [2, 1]


def test_the_page_without_its_scripts_names_the_plain_image(viewer: WebViewer) -> None:
    """A browser that is too old for the scripts runs none of them."""
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=30)) as connection:
        connection.request("GET", "/")
        page = connection.getresponse().read().decode()
    (banner,) = re.findall(r'<p class="banner"[^>]*>.*?</p>', page)
    assert "hidden" not in banner
    assert '<a href="stream.mjpg">' in banner
    assert '<div class="held"><canvas id="correct-canvas"' in page, (
        "in WebKit a canvas of 100 % outgrows its row of a grid"
    )
    controls = re.findall(r"<(?:select|input type=.(?:range|radio|checkbox))[^>]*>", page)
    assert len(controls) == 9
    assert all('autocomplete="off"' in one for one in controls), "Firefox restores what the scripts do not know of"
