"""The page behind a reverse proxy: below a path prefix, under another name, and through a network that is cut."""

from __future__ import annotations

import http.client
import json
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from correction_fakes import corrected_clip
from prefix_proxy import PrefixProxy
from waiting import until
from webplayer import CLASSES, Player, serve

pytest.importorskip("aiortc", reason="the extra `live` is not installed")
pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.web.address import Address, check_proxy_url
from cliprl.pipeline.web.limits import Limits
from cliprl.pipeline.web.server import WebViewer
from cliprl.pipeline.web.status_json import ProgramInfo

needs_chromium = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no Chromium with chromedriver here"
)
ANY = Address("127.0.0.1", 0, True)
PUBLIC = "https://or.example:8443/or1"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def text(page: Any, name: str) -> str:
    return str(page.execute_script("return document.getElementById(arguments[0]).textContent", name))


def forget(page: Any) -> None:
    page.get_log("browser"), page.get_log("performance")


@needs_chromium
def test_page_below_a_prefix_asks_for_nothing_outside(chromium: Any, player: Player, viewer: WebViewer) -> None:
    player.controls.change(hidden=[])
    forget(chromium)
    with PrefixProxy(viewer.port) as proxy:
        chromium.get(proxy.url)
        until(lambda: text(chromium, "fps") not in ("", "–"))
        chromium.find_element("css selector", "#classes input[name=shaft]").click()
        until(lambda: player.controls.settings.hidden == {"shaft"})
        chromium.find_element("id", "snapshot").click()
        until(lambda: re.search(r"Snapshot saved as live_overlay_.*\.png", text(chromium, "outcome")))
        asked = set(proxy.requested)
        chromium.get("about:blank")
    assert {"/or1/ws", "/or1/api/stream", "/or1/snapshot.png", "/or1/static/viewer.css"} <= asked
    assert all(path.startswith("/or1/") for path in asked), asked
    assert chromium.get_log("browser") == []


@needs_chromium
def test_two_proxied_viewers_have_a_login_each(chromium: Any, player: Player) -> None:
    """Their ports, and so the names of their cookies, may be equal on two machines; the prefixes are not."""
    with (
        serve(player, "0.0.0.0") as viewer,
        PrefixProxy(viewer.port, "/or1/") as first,
        PrefixProxy(viewer.port, "/or2/") as second,
    ):
        for proxy in (first, second):
            chromium.get(proxy.url)
            until(lambda: text(chromium, "hint").startswith("The program has printed"))
            chromium.get("about:blank")
            chromium.get(f"{proxy.url}#token={viewer.token}")
            until(lambda: chromium.execute_script("return Boolean(document.getElementById('stage'))"))
            until(lambda: text(chromium, "fps") not in ("", "–"))
            assert chromium.current_url == proxy.url
            assert [cookie["path"] for cookie in chromium.get_cookies()] == [f"/{proxy.url.split('/')[3]}"]
        chromium.get("about:blank")
    chromium.delete_all_cookies()


@needs_chromium
def test_a_correction_below_a_prefix_is_kept(chromium: Any, tmp_path: Path) -> None:
    with corrected_clip(tmp_path) as (live, service):
        program = ProgramInfo(live.broadcast, live.controls, live.info, CLASSES, False, "test", live.playback, service)
        with WebViewer(program, ANY) as viewer, PrefixProxy(viewer.port) as proxy:
            chromium.get(proxy.url)
            until(chromium.find_element("id", "correct").is_displayed)
            for name, note in (("correct", "Frame held"), ("correct-keep", "Kept as revision 1.")):
                chromium.find_element("id", name).click()
                until(lambda n=note: n in text(chromium, "correct-note"))
            assert text(chromium, "correct-kept") == "1 revision of 1 frame kept"
            chromium.get("about:blank")


@needs_chromium
def test_a_cut_network_is_noticed_and_survived(chromium: Any, viewer: WebViewer) -> None:
    """A pulled cable closes no connection: the page must give the silent one up by itself."""
    with PrefixProxy(viewer.port) as proxy:
        chromium.get(proxy.url)
        until(lambda: text(chromium, "state-text") == "Live")
        proxy.cut()
        until(lambda: "Connection to the program lost" in text(chromium, "banner"))
        proxy.mend()
        until(lambda: text(chromium, "state-text") == "Live")
        until(lambda: not chromium.find_element("id", "banner").is_displayed())
        chromium.get("about:blank")


@needs_chromium
def test_another_program_at_the_address_is_shown_anew(chromium: Any, player: Player) -> None:
    with serve(player) as viewer:
        chromium.get(viewer.url)
        until(lambda: chromium.execute_script("return document.querySelectorAll('#classes li').length") == 2)
    more = (*CLASSES, ClassSpec("liver", (90, 0, 0), "tissue"))
    with Player(classes=more) as other, serve(other, port=viewer.port):
        until(lambda: chromium.execute_script("return document.querySelectorAll('#classes li').length") == 3)
    with serve(player, "0.0.0.0", port=viewer.port):
        until(lambda: chromium.execute_script("return Boolean(document.getElementById('token'))"))


def ask(viewer: WebViewer, path: str, headers: dict[str, str]) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=30)) as connection:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status


@pytest.mark.parametrize("host", ["or.example:8443", "127.0.0.1"])
def test_a_named_proxy_passes_the_checks_and_others_do_not(player: Player, host: str) -> None:
    program = ProgramInfo(player.broadcast, player.controls, player.info, CLASSES)
    with WebViewer(program, ANY, Limits(), proxy_url=PUBLIC) as viewer:
        assert viewer.external_urls == [f"{PUBLIC}/#token={viewer.token}"]
        token = {"Authorization": f"Bearer {viewer.token}"}
        origin = {"Origin": "https://or.example:8443"}
        assert ask(viewer, "/ws", UPGRADE | token | origin | {"Host": host}) == 101
        assert ask(viewer, "/ws", UPGRADE | origin | {"Host": host}) == 401
        for foreign in ("https://evil.example", "https://or.example", "https://or.example:8443.evil.example", "null"):
            assert ask(viewer, "/ws", UPGRADE | token | {"Origin": foreign, "Host": host}) == 403
        for name in ("or.example", "evil.example:8443", "or.example:84430", ""):
            assert ask(viewer, "/", token | {"Host": name}) in (400, 403)


def test_without_the_option_another_name_is_refused(viewer: WebViewer) -> None:
    assert ask(viewer, "/", {"Host": "or.example:8443"}) == 403
    assert ask(viewer, "/ws", UPGRADE | {"Host": "127.0.0.1", "Origin": "https://or.example:8443"}) == 403


@pytest.mark.parametrize(
    "url", ["or.example", "ftp://or.example/", "https:///or1", "https://u:p@or.example/", "https://a/?b"]
)
def test_an_address_of_no_proxied_page_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"write it as https://HOST/PATH/"):
        check_proxy_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Host:443/a", "https://host/a/"),
        ("http://host:80", "http://host/"),
        ("https://host:8443/", "https://host:8443/"),
        ("https://köln.example/or1", "https://xn--kln-sna.example/or1/"),
        ("https://[::1]/x/", "https://[::1]/x/"),
    ],
)
def test_addresses_behind_a_proxy_are_as_browsers_send_them(url: str, expected: str) -> None:
    assert check_proxy_url(url) == expected


def test_a_page_over_tls_is_not_had_without_it(player: Player) -> None:
    program = ProgramInfo(player.broadcast, player.controls, player.info, CLASSES)
    with WebViewer(program, ANY, Limits(), proxy_url=PUBLIC) as viewer:
        for scheme, status in (("https", 200), ("http", 403)):
            with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=30)) as connection:
                headers = {"Origin": f"{scheme}://or.example:8443", "Content-Type": "application/json"}
                connection.request("POST", "/login", json.dumps({"token": viewer.token}), headers)
                answer = connection.getresponse()
                assert answer.status == status
                assert ("Secure" in answer.headers.get("Set-Cookie", "")) == (status == 200)
