"""What the web viewer takes from clients before it knows them: little, for a short time, and only what is well formed."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from waiting import until
from webplayer import Player, serve

from cliprl.engines import UsageError
from cliprl.pipeline.live.controls import Controls, Settings

pytest.importorskip("aiortc", reason="the extra `live` is not installed")

import aiohttp

from cliprl.pipeline.web import session
from cliprl.pipeline.web.address import peer_key
from cliprl.pipeline.web.json_body import parse_object
from cliprl.pipeline.web.limits import LOGIN_ATTEMPTS, LOGIN_WINDOW, Limits, LoginLimit, MessageBudget
from cliprl.pipeline.web.media.rtc import PeerLimit
from cliprl.pipeline.web.server import WebViewer

LIMIT = 30.0
PLENTY = Limits()
BAD = {
    "a lone surrogate": rb'{"token": "\ud800"}',
    "a lone surrogate as a key": rb'{"\udc80": 1}',
    "10,000 nested objects": b'{"opacity":' * 5_000 + b"1" + b"}" * 5_000,
    "10,000 nested lists": b'{"hidden":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "NaN": b'{"opacity": NaN}',
    "infinity": b'{"opacity": -Infinity}',
    "a float that is too large": b'{"opacity": 1e999}',
    "an int that is too large": b'{"opacity": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"opacity": 0.1, "opacity": 0.2}',
    "bytes that are not UTF-8": b'{"token": "\xff"}',
    "surrogates in bytes": b'{"token": "\xed\xa0\x80"}',
    "UTF-16": '{"token": "a"}'.encode("utf-16"),
    "an unknown key": b'{"self": 1}',
    "another unknown key": b'{"__class__": {}}',
    "a list": b"[]",
    "null": b"null",
    "nothing": b"",
    "half": b'{"opacity"',
    "two": b"{}{}",
    "a mark before": b"\xef\xbb\xbf{}",
}


def post(viewer: WebViewer, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)) as connection:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()


def get(viewer: WebViewer, path: str = "/healthz") -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def connect(viewer: WebViewer, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", viewer.port), timeout=LIMIT)
    client.sendall(data)
    return client


def is_closed(client: socket.socket) -> bool:
    """Whether the server has closed the connection, once what it sent has been read."""
    client.settimeout(LIMIT)
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("path", ["/login", "/api/controls"])
@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_malformed_body_is_refused_in_one_line_without_effect(
    viewer: WebViewer, player: Player, path: str, body: bytes
) -> None:
    before = player.controls.settings
    status, answer = post(viewer, path, body)
    assert status == 400
    line = json.loads(answer)["error"]
    assert line
    assert "\n" not in line
    assert len(line) < 300
    assert player.controls.settings == before


@pytest.mark.parametrize(
    "charset", ["utf-16", "latin-1", "no-such-charset", "rot13", "base64", "zlib", "utf-7", "idna"]
)
@pytest.mark.parametrize("path", ["/login", "/api/controls"])
def test_a_charset_that_is_not_utf_8_is_refused(viewer: WebViewer, path: str, charset: str) -> None:
    assert post(viewer, path, b"{}", f"application/json; charset={charset}")[0] == 400
    assert post(viewer, path, b"{}", "application/json; charset=UTF-8")[0] == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ";", "", "json"]
)
def test_another_type_of_content_is_refused(viewer: WebViewer, kind: str) -> None:
    for path in ("/login", "/api/controls"):
        assert post(viewer, path, b"{}", kind)[0] == 415


@pytest.mark.parametrize(
    "body",
    [
        {"opacity": True},
        {"opacity": "0.5"},
        {"opacity": [0.5]},
        {"opacity": None},
        {"opacity": -1e-9},
        {"contours": 1},
        {"contours": None},
        {"paused": {}},
        {"hidden": 5},
        {"hidden": None},
        {"hidden": {"shaft": 1}},
        {"hidden": [["shaft"]]},
        {"hidden": ["background"]},
        {"hidden": ["\x00"]},
        {"show": []},
        {"show": {"shaft": "yes"}},
        {"show": {"shaft": None}},
        {"show": {"liver": True}},
        {"classes": []},
        {"_lock": 1},
        {"opacity": 0.7, "show": {"shaft": False}, "values": 1},
    ],
)
def test_control_of_wrong_name_or_type_is_refused_whole(
    viewer: WebViewer, player: Player, body: dict[str, object]
) -> None:
    before = player.controls.settings
    status, answer = post(viewer, "/api/controls", json.dumps(body).encode())
    assert status == 400
    assert "Controls" not in json.loads(answer)["error"]
    assert player.controls.settings == before


def test_controls_are_refused_to_python_callers_too() -> None:
    controls = Controls()
    for values in ({"self": 1}, {"values": 2}, {"opacity": float("nan")}, {"hidden": 1}):
        with pytest.raises(UsageError):
            controls.change(**values)
    assert controls.settings == Settings()


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_malformed_socket_message_is_refused_and_the_socket_stays_open(viewer: WebViewer, body: bytes) -> None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = repr(body)

    async def talk() -> dict[str, object]:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{viewer.port}/ws") as page:
            await page.send_str(text)
            while "refused" not in (answer := await page.receive_json(timeout=LIMIT)):
                pass
            await page.send_json({"ping": 5})
            while (await page.receive_json(timeout=LIMIT)).get("pong") != 5:
                pass
            return dict(answer)

    assert "\n" not in str(asyncio.run(talk())["refused"])


@pytest.mark.parametrize(
    "message",
    [
        {"ping": {"a": {}}},
        {"ping": "x"},
        {"offer": 1, "views": ["overlay"], "call": 1},
        {"offer": "v=0", "views": ["overlay"], "call": 1},
        {"offer": "v=0\r\n" + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 500, "views": ["overlay"], "call": 1},
        {"offer": "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n", "views": ["overlay"], "call": 1},
        {"offer": "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n", "views": [], "call": 1},
        {"offer": "v=0", "views": ["overlay"], "call": {}},
    ],
)
def test_message_of_wrong_types_is_refused_without_a_handle(viewer: WebViewer, message: dict[str, object]) -> None:
    before = len(os.listdir("/proc/self/fd"))

    async def talk() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{viewer.port}/ws") as page:
            await page.send_json(message)
            while "refused" not in await page.receive_json(timeout=LIMIT):
                pass

    asyncio.run(talk())
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_json_is_read_as_it_is_written() -> None:
    assert parse_object('{"a": [1, -2.5, "ü😀", null, true], "b": {"c": 1e3}}'.encode()) == {
        "a": [1, -2.5, "ü😀", None, True],
        "b": {"c": 1000.0},
    }


def test_only_so_many_wrong_tokens_are_answered(player: Player) -> None:
    with serve(player, host="0.0.0.0") as viewer:
        attempts = [
            threading.Thread(target=post, args=(viewer, "/login", b'{"token": "x"}')) for _ in range(LOGIN_ATTEMPTS)
        ]
        for attempt in attempts:
            attempt.start()
        for attempt in attempts:
            attempt.join()
        post(viewer, "/login", b'{"token": "x"}'), post(viewer, "/login", b'{"token": "x"}')
        status, answer = post(viewer, "/login", b'{"token": "x"}')
        assert status == 429
        assert "try again in" in json.loads(answer)["error"]
        assert get(viewer) == 200
        status, _ = post(viewer, "/login", json.dumps({"token": viewer.token}).encode())
        assert status == 200, "who has the token is not locked out by others of the same address"


def test_peer_may_retry_later_and_others_at_once() -> None:
    now = [0.0]
    limit = LoginLimit(lambda: now[0])
    for _ in range(LOGIN_ATTEMPTS):
        assert limit.wait("a") == 0
        limit.count_failure("a")
    assert limit.wait("a") == LOGIN_WINDOW
    assert limit.wait("b") == 0
    now[0] = LOGIN_WINDOW
    assert limit.wait("a") == 0
    for peer in range(5000):
        limit.count_failure(str(peer))
    assert len(limit._failures) <= 1024


def test_limits_leave_handles_for_the_recording() -> None:
    usual = Limits.of_handles(800, one_peer=False)
    assert usual.connections + usual.rtc_handles <= 800
    assert usual.per_peer < usual.viewers <= usual.connections // 2 or usual.per_peer <= usual.connections // 4
    assert Limits.of_handles(800, one_peer=True).per_peer == usual.connections
    for free in (-50, 0, 20):
        few = Limits.of_handles(free, one_peer=False)
        assert 4 <= few.connections <= 10
        assert few.viewers >= 2
    assert Limits.of_process(one_peer=True).connections >= 8


def test_webrtc_connections_are_counted_in_handles() -> None:
    limit = PeerLimit(handles=0)
    with pytest.raises(UsageError, match="MJPEG"):
        limit.enter()
    limit = PeerLimit(handles=10_000)
    limit.enter()
    limit.leave()


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (("192.168.1.2", 5), "192.168.1.2"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (("2001:db8::1:2", 5, 0, 0), "2001:db8::/64"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (None, ""),
        ("", ""),
    ],
)
def test_what_counts_as_one_peer(address: object, key: str) -> None:
    assert peer_key(address) == key


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        b"POST /api/controls HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_who_does_not_go_on_is_let_go(player: Player, start: bytes) -> None:
    with (
        serve(player, limits=replace(PLENTY, request_s=0.3, idle_s=0.3)) as viewer,
        closing(connect(viewer, start)) as client,
    ):
        assert is_closed(client)
        until(lambda: len(viewer._pool) == 0)


def test_client_that_sends_single_bytes_slowly_is_disconnected(player: Player) -> None:
    with serve(player, limits=replace(PLENTY, request_s=0.5)) as viewer, closing(connect(viewer)) as client:
        ended = threading.Event()

        def trickle() -> None:
            try:
                client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                while not ended.wait(0.02):
                    client.sendall(b"X: 1\r\n")
            except OSError:
                pass

        sender = threading.Thread(target=trickle)
        sender.start()
        assert is_closed(client)
        ended.set()
        sender.join()


def test_a_response_that_nobody_takes_is_given_up(player: Player) -> None:
    request = b"GET /static/viewer.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with serve(player, limits=replace(PLENTY, idle_s=0.3, request_s=0.3)) as viewer, closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", viewer.port))
        client.sendall(request * 400)  # more than the system's buffers hold
        until(lambda: len(viewer._pool) == 1)
        until(lambda: len(viewer._pool) == 0)


def test_too_large_body_is_refused_before_it_arrives(viewer: WebViewer) -> None:
    head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n"
    with closing(connect(viewer, head + b" " * 100_000)) as client:
        assert b" 413 " in client.recv(100)


def test_one_that_waits_makes_way_for_one_that_asks(player: Player) -> None:
    """Of eight places, all taken by clients that only wait; those that never asked for anything go first."""
    with serve(player, limits=replace(PLENTY, connections=8, per_peer=8)) as viewer, ExitStack() as opened:
        known = opened.enter_context(closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)))
        known.request("GET", "/healthz")
        known.getresponse().read()
        stream = opened.enter_context(closing(connect(viewer, b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")))
        assert b" 200 " in stream.recv(100)
        own = known.sock
        for number in range(50):
            opened.enter_context(closing(connect(viewer, b"GET /" * (number % 2))))
            assert get(viewer) == 200
            assert len(viewer._pool) <= 8
        known.request("GET", "/healthz")
        assert known.getresponse().status == 200
        assert known.sock is own
        assert stream.recv(1 << 16)


def test_where_all_places_are_watched_from_another_is_turned_away(player: Player) -> None:
    request = b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    limits = replace(PLENTY, connections=2, per_peer=2, viewers=8)
    with (
        serve(player, limits=limits) as viewer,
        closing(connect(viewer, request)) as one,
        closing(connect(viewer, request)) as two,
    ):
        assert one.recv(100)
        assert two.recv(100)
        with closing(connect(viewer)) as third:
            assert is_closed(third)
        assert one.recv(1 << 16)


def test_one_peer_gets_no_more_than_its_share(player: Player) -> None:
    with serve(player, limits=replace(PLENTY, per_peer=4), host="0.0.0.0") as viewer, ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(closing(connect(viewer)))
        until(lambda: len(viewer._pool) == 4)
        assert get(viewer) == 200


def test_what_clients_do_wrong_is_not_logged(player: Player, capfd: pytest.CaptureFixture[str]) -> None:
    head = b"POST /api/controls HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with serve(player, limits=replace(PLENTY, request_s=0.3)) as viewer:
        for data in (
            b"\x00\x01",
            b"GET / HTTP/1.1\r\nA B\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"x" * 99_999,
        ):
            with closing(connect(viewer)) as client:
                client.sendall(data)
                assert is_closed(client)
        for _ in range(3):  # ends in the middle of a body
            connect(viewer, head + b"Content-Length: 9\r\n\r\n{").close()
        until(lambda: len(viewer._pool) == 0)
    assert capfd.readouterr().err == ""


class Flood:
    """A socket on which ten pings lie ready."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self._left = 10

    def __aiter__(self) -> Flood:
        return self

    async def __anext__(self) -> aiohttp.WSMessage:
        self._left -= 1
        if self._left < 0:
            raise StopAsyncIteration
        return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, '{"ping": 1}', None)

    async def send_str(self, text: str) -> None:
        self.answers.append(text)


def test_page_that_floods_its_socket_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages kept the server's only thread: pages of others got their images up to 3 s late."""
    pauses, sleep, socket = list[float](), asyncio.sleep, Flood()

    async def pause(seconds: float) -> None:
        if seconds != session.STATUS_PERIOD:
            pauses.append(seconds)
        await sleep(0.001)

    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr(session, "MessageBudget", lambda: MessageBudget(4.0, clock=lambda: 0.0))
    asyncio.run(session.ViewerSession(socket, {}, lambda: {"clock": 0}, "", PeerLimit(8)).run())  # type: ignore[arg-type]
    assert pauses == [n / 4 for n in range(1, 7)]
    assert sum("pong" in answer for answer in socket.answers) == 10
