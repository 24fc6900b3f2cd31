"""The web viewer in a real Chromium: the picture moves, every control changes it, and it can be used without a mouse or eyes."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
import pytest
from waiting import until
from webplayer import CLASSES, Player, serve, tracked

from cliprl.pipeline.live.broadcast import Freshness, RecordingStatus, RecordState, SourceState
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.live.playback import Playback, open_file_at
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.sources import open_source

pytest.importorskip("aiortc", reason="the extra `live` is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no Chromium with chromedriver here"
)

from cliprl.pipeline.web.address import Address  # noqa: E402
from cliprl.pipeline.web.server import WebViewer  # noqa: E402
from cliprl.pipeline.web.status_json import ProgramInfo  # noqa: E402

ANY = Address("127.0.0.1", 0, True)
SHAFT, BARE, KIDNEY = (50, 100), (160, 100), (260, 100)
# Reads a pixel of the first or second picture, wherever it is drawn, as the browser shows it.
PIXEL = """
const pane = document.querySelectorAll(".pane")[arguments[0]];
const video = pane.querySelector("video"), canvas = pane.querySelector("canvas");
const shown = video.hidden ? canvas : video;
const copy = new OffscreenCanvas(shown.videoWidth || shown.width || 1, shown.videoHeight || shown.height || 1);
const context = copy.getContext("2d");
context.drawImage(shown, 0, 0);
return [...context.getImageData(...arguments[1], 1, 1).data.slice(0, 3)];
"""
PRINT = PIXEL.replace("getImageData(...arguments[1], 1, 1).data.slice(0, 3)", "getImageData(0, 190, 320, 40).data")


@pytest.fixture
def page(chromium: Any, viewer: WebViewer, player: Player) -> Any:
    """The page, fresh, as it is when somebody opens it."""
    player.controls.change(opacity=0.4, contours=True, hidden=[], recording=False)
    if chromium.current_url == viewer.url:
        chromium.execute_script("localStorage.clear()")
    chromium.get_log("browser"), chromium.get_log("performance")
    chromium.get(viewer.url)
    until(lambda: text(chromium, "fps") not in ("", "–"))
    until(lambda: chromium.execute_script("return document.querySelectorAll('#classes li').length") == 2)
    return chromium


def text(page: Any, name: str) -> str:
    return str(page.execute_script("return document.getElementById(arguments[0]).textContent", name))


def pixel(page: Any, place: tuple[int, int], pane: int = 0) -> np.ndarray:
    return np.array(page.execute_script(PIXEL, pane, place))


def is_painted(page: Any, place: tuple[int, int], pane: int = 0) -> bool:
    return bool(np.ptp(pixel(page, place, pane)) > 30)


def press(page: Any, keys: str) -> None:
    webdriver.ActionChains(page).send_keys(keys).perform()


def click(page: Any, name: str) -> None:
    page.find_element("id", name).click()


def use_mjpeg(page: Any) -> None:
    page.execute_script(
        "const s = document.getElementById('transport'); s.value = 'jpeg'; s.dispatchEvent(new Event('change'))"
    )
    until(lambda: page.execute_script("return document.querySelector('#live video').hidden"))


def on_webrtc(page: Any) -> bool:
    return bool(page.execute_script("return !document.querySelector('#live video').hidden"))


def moves(page: Any) -> bool:
    first = page.execute_script(PRINT, 0)
    until(lambda: page.execute_script(PRINT, 0) != first)
    return True


@contextmanager
def media(page: Any, **features: str) -> Iterator[None]:
    values = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": values})
    yield
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_page_requests_no_other_host_and_violates_no_policy(page: Any, viewer: WebViewer) -> None:
    until(lambda: on_webrtc(page))
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    places = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    places += [m["params"]["url"] for m in asked if m["method"] == "Network.webSocketCreated"]
    assert len(places) > 8
    for place in places:
        parts = urlsplit(place)
        assert parts.scheme in ("blob", "data") or parts.netloc == f"127.0.0.1:{viewer.port}", place
    assert page.get_log("browser") == []


def test_webrtc_connects_moves_and_is_dated(page: Any) -> None:
    until(lambda: on_webrtc(page))
    assert moves(page)
    until(lambda: text(page, "latency") != "–" and 0 <= int(text(page, "latency")) < 2000)
    assert "WebRTC" in text(page, "transport")


def test_mjpeg_moves_and_is_dated(page: Any) -> None:
    use_mjpeg(page)
    assert moves(page)
    until(lambda: text(page, "latency") != "–" and 0 <= int(text(page, "latency")) < 2000)


def test_where_webrtc_can_not_connect_mjpeg_goes_on(page: Any, viewer: WebViewer) -> None:
    source = "RTCPeerConnection.prototype.setRemoteDescription = async () => {}"
    script = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        page.get(viewer.url)
        until(lambda: "MJPEG" in text(page, "announcer"))
        assert not on_webrtc(page)
        assert moves(page)
    finally:
        page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_browser_that_lacks_parts_shows_mjpeg(page: Any, viewer: WebViewer) -> None:
    source = """
    delete HTMLVideoElement.prototype.requestVideoFrameCallback;
    Object.defineProperty(Document.prototype, "fullscreenEnabled", { value: false });
    delete AbortSignal.timeout;
    """
    script = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        page.get(viewer.url)
        until(lambda: text(page, "fps") not in ("", "–"))
        assert not page.find_element("id", "full").is_displayed()
        press(page, "fc")
        until(lambda: not page.execute_script("return document.getElementById('contours').checked"))
        assert moves(page)
        assert not on_webrtc(page)
        assert page.get_log("browser") == []
    finally:
        page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_an_image_is_marked_before_its_page_is_seen_again(page: Any) -> None:
    use_mjpeg(page)
    page.execute_script("""
        Object.defineProperty(document, "hidden", { value: true });
        document.dispatchEvent(new Event("visibilitychange"));
    """)
    until(lambda: text(page, "banner").startswith("No new image for"))
    assert page.find_element("id", "banner").is_displayed()


def test_images_that_are_not_displayed_yet_count_once(page: Any) -> None:
    """A browser that displays nothing for seconds, as WebKit does of a covered window, draws on."""
    use_mjpeg(page)
    page.execute_script("window.waiting = []; window.requestAnimationFrame = (call) => waiting.push(call)")
    assert moves(page)
    assert moves(page)
    assert page.execute_script("return waiting.length") == 1


# A page whose clock stood still for 20 s while the program's went on: 8 answers before, one after.
SLEPT = """
const done = arguments[0];
let now = 0, socket;
performance.now = () => now;
window.WebSocket = class { static OPEN = 1; readyState = 1; constructor() { socket = this; } send() {} close() {} };
import("./static/link.js").then(({ Link }) => {
  const link = new Link();
  const answer = (sent, came, clock) => { now = came; socket.onmessage({ data: JSON.stringify({ pong: sent, clock }) }); };
  for (let i = 0; i < 8; i++) answer(100 * i, 100 * i + 2, 100 * i + 5001);
  const before = link.toProgram(0);
  answer(900, 960, 25930);
  done([before, link.toProgram(0), link.doubt]);
});
"""


def test_the_clock_is_right_again_after_a_sleep(page: Any) -> None:
    assert page.execute_async_script(SLEPT) == [5000, 25000, 30]


def test_both_ways_show_the_true_colours(page: Any) -> None:
    grey = (110 - 16) * 255 / 219
    until(lambda: on_webrtc(page))
    for tolerance in (12, 6):  # VP8 is coarser than JPEG
        for place, spec in ((SHAFT, CLASSES[1]), (KIDNEY, CLASSES[2])):
            expected = np.array(spec.color) * 0.4 + grey * 0.6
            until(lambda p=place, e=expected, t=tolerance: np.abs(pixel(page, p) - e).max() <= t)
        use_mjpeg(page)


def test_class_is_hidden_by_checkbox_and_by_key(page: Any) -> None:
    until(lambda: is_painted(page, SHAFT) and is_painted(page, KIDNEY))
    page.find_element("css selector", "#classes input[name=shaft]").click()
    until(lambda: not is_painted(page, SHAFT))
    assert is_painted(page, KIDNEY)
    press(page, "1")
    until(lambda: is_painted(page, SHAFT))
    press(page, "2")
    until(lambda: not is_painted(page, KIDNEY))
    press(page, "a")
    until(lambda: is_painted(page, KIDNEY))
    click(page, "all")
    until(lambda: not is_painted(page, KIDNEY) and not is_painted(page, SHAFT))


def test_areas_are_told(page: Any) -> None:
    shares = page.execute_script("return [...document.querySelectorAll('.share')].map((node) => node.textContent)")
    assert all(re.fullmatch(r"\d\d\.\d %", share) for share in shares)
    assert float(shares[0].split()[0]) == pytest.approx(100 * 25 * 24 / (64 * 80), abs=0.1)
    titles = page.execute_script("return [...document.querySelectorAll('li')].map((node) => node.title)")
    assert [title for title in titles if title] == ["presence 88 %"]


def test_at_opacity_0_the_picture_is_the_raw_one(page: Any) -> None:
    use_mjpeg(page)
    click(page, "beside")
    until(lambda: pixel(page, BARE, 1).sum() > 0)
    until(lambda: is_painted(page, SHAFT) and not is_painted(page, SHAFT, 1))
    press(page, "o")
    until(lambda: not is_painted(page, SHAFT))
    above = PIXEL.replace("getImageData(...arguments[1], 1, 1).data.slice(0, 3)", "getImageData(0, 0, 320, 184).data")
    until(lambda: page.execute_script(above, 0) == page.execute_script(above, 1))
    press(page, "o")
    until(lambda: is_painted(page, SHAFT))


def test_opacity_and_contours_by_hand_and_by_key(page: Any, player: Player) -> None:
    before = pixel(page, SHAFT)[0]
    press(page, "]]")
    until(lambda: text(page, "opacity-value") == "50 %")
    until(lambda: pixel(page, SHAFT)[0] < before - 5)
    press(page, "[")
    until(lambda: player.controls.settings.opacity == 0.45)
    page.execute_script(
        "const s = document.getElementById('opacity'); s.value = 100; s.dispatchEvent(new Event('input'))"
    )
    until(lambda: pixel(page, SHAFT)[0] < 40)
    assert player.controls.settings.contours
    press(page, "c")
    until(lambda: not player.controls.settings.contours)
    page.find_element("css selector", "label[for=contours]").click()
    until(lambda: player.controls.settings.contours)


@pytest.mark.parametrize("mjpeg", [True, False])
def test_a_still_stands_beside_the_picture_that_goes_on(page: Any, mjpeg: bool) -> None:
    use_mjpeg(page) if mjpeg else until(lambda: on_webrtc(page))
    press(page, " ")
    until(lambda: text(page, "freeze") and page.execute_script("return !document.getElementById('other').hidden"))
    still = page.execute_script(PRINT, 1)
    assert len(set(still)) > 1
    assert moves(page)
    assert page.execute_script(PRINT, 1) == still
    assert page.find_element("id", "freeze").get_attribute("aria-pressed") == "true"
    press(page, " ")
    until(lambda: page.execute_script("return document.getElementById('other').hidden"))


def test_raw_beside_over_webrtc(page: Any) -> None:
    until(lambda: on_webrtc(page))
    press(page, "b")
    until(lambda: page.execute_script("return !document.querySelector('#other video').hidden"))
    until(lambda: is_painted(page, SHAFT) and not is_painted(page, SHAFT, 1))
    press(page, "b")
    until(lambda: page.execute_script("return document.getElementById('other').hidden"))
    until(lambda: on_webrtc(page))
    assert moves(page)


def test_whoever_cannot_decide_gets_what_was_asked_for_last(page: Any) -> None:
    """Calls that are given up at once must not be answered in the place of the last."""
    press(page, "bbbbb")
    until(lambda: page.execute_script("return !document.querySelector('#other video').hidden"))
    until(lambda: is_painted(page, SHAFT) and not is_painted(page, SHAFT, 1))
    press(page, "bbb")
    until(lambda: on_webrtc(page))
    assert page.execute_script("return document.getElementById('other').hidden")
    assert moves(page)


def test_recording_and_snapshot_are_asked_for(page: Any, player: Player) -> None:
    press(page, "r")
    until(lambda: player.controls.settings.recording)
    until(lambda: page.find_element("id", "recording").is_displayed())
    click(page, "record")
    until(lambda: not player.controls.settings.recording)
    press(page, "s")
    until(lambda: re.search(r"Snapshot saved as live_overlay_.*\.png", text(page, "outcome")))
    press(page, " s")
    until(lambda: re.search(r"Snapshot saved as cliprl_frozen_.*\.png", text(page, "outcome")))


def test_failed_recording_shows_in_banner_and_on_button(page: Any, player: Player) -> None:
    press(page, "r")
    until(lambda: text(page, "record-text") == "Recording")
    alert = page.find_element("id", "alert")
    assert not alert.is_displayed()
    player.recording = RecordingStatus("raw", RecordState.FAILED, 40, 7, 1, "no room")
    player.note = "the raw recording has failed: no room; trying again"
    try:
        until(lambda: text(page, "record-text") == "Retrying …")
        assert text(page, "recording-text") == "Recording failed: trying again"
        assert alert.is_displayed()
        assert alert.aria_role == "alert"
        assert text(page, "alert-text") == player.note
        assert text(page, "f-missed") == "7"
        assert not page.find_element("id", "alert-close").is_displayed()
        player.recording = RecordingStatus("raw", RecordState.RECORDING, 60, 9, 1, "no room")
        player.note = "frames are missing in the raw recording"
        until(lambda: text(page, "record-text") == "Recording" and text(page, "f-missed") == "9")
        assert alert.is_displayed()
        click(page, "alert-close")
        until(lambda: not alert.is_displayed())
        assert page.find_element("id", "f-missed").is_displayed()
    finally:
        player.recording, player.note = RecordingStatus("raw"), ""


def test_record_button_shows_the_state_not_the_request(page: Any, player: Player) -> None:
    player.recording = RecordingStatus("raw", RecordState.FAILED)
    try:
        press(page, "r")
        until(lambda: player.controls.settings.recording)
        press(page, "r")
        until(lambda: not player.controls.settings.recording)
        until(lambda: text(page, "record-text") == "Retrying …")
        assert page.find_element("id", "record").get_attribute("aria-pressed") == "true"
    finally:
        player.recording = RecordingStatus("raw")
    until(lambda: page.find_element("id", "record").get_attribute("aria-pressed") == "false")


def test_a_file_can_be_paused_and_that_is_no_stall(chromium: Any) -> None:
    with Player(live=False) as player, serve(player) as viewer:
        chromium.get(viewer.url)
        until(lambda: text(chromium, "fps") not in ("", "–"))
        until(lambda: chromium.find_element("id", "pause").is_displayed())
        press(chromium, "p")
        until(lambda: text(chromium, "state-text") == "Paused")
        time.sleep(0.8)
        assert not chromium.find_element("id", "banner").is_displayed()
        press(chromium, "p")
        until(lambda: text(chromium, "state-text") == "Live")
        assert moves(chromium)


def test_a_stall_is_seen_and_said(page: Any, player: Player) -> None:
    until(lambda: text(page, "state-text") == "Live")
    time.sleep(0.3)
    player.turn(SourceState.STALLED)
    try:
        until(lambda: "Source stalled" in text(page, "announcer"))
        until(lambda: "Source stalled" in text(page, "banner"))
        assert page.find_element("id", "banner").is_displayed()
        assert text(page, "state-text") == "Stalled"
    finally:
        player.turn(SourceState.LIVE)
    until(lambda: "Source live" in text(page, "announcer"))
    until(lambda: not page.find_element("id", "banner").is_displayed())


def test_a_late_picture_is_called_late(page: Any, player: Player) -> None:
    until(lambda: text(page, "state-text") == "Live")
    player.turn(SourceState.BEHIND)
    try:
        until(lambda: text(page, "state-text") == "Behind by 2.5 s")
        until(lambda: text(page, "banner").startswith("Behind by 2.5 s"))
    finally:
        player.turn(SourceState.LIVE)
    until(lambda: text(page, "state-text") == "Live")


def test_whose_mask_it_is_is_told(page: Any, player: Player) -> None:
    until(lambda: text(page, "mask-text") == "Mask fresh" or text(page, "mask-text") == "Mask aged 0 ms")
    player.mask = Freshness.OFF
    try:
        until(lambda: text(page, "mask-text") == "Mask off")
        until(lambda: not is_painted(page, SHAFT))
    finally:
        player.mask = Freshness.FRESH


COUNTED = """
window.opened = window.asked = 0;
const { WebSocket: Socket, fetch: request } = window;
window.WebSocket = class extends Socket { constructor(...given) { super(...given); opened++; } };
window.fetch = (...given) => { asked += given[0] === "healthz"; return request(...given); };
"""


def test_page_reports_a_lost_server_and_reconnects(chromium: Any, player: Player) -> None:
    with serve(player) as viewer:
        chromium.get(viewer.url)
        until(lambda: text(chromium, "fps") not in ("", "–"))
        chromium.execute_script(COUNTED)
    until(lambda: "Connection to the program lost" in text(chromium, "banner"))
    assert text(chromium, "state-text") == "No connection"
    until(lambda: chromium.execute_script("return asked > 1"))
    assert chromium.execute_script("return opened") == 0, "a program that is away is asked by plain requests"
    with serve(player, port=viewer.port):
        until(lambda: text(chromium, "state-text") == "Live")
        assert moves(chromium)


def test_three_at_once_and_a_reload(page: Any, viewer: WebViewer) -> None:
    first = page.current_window_handle
    handles = [first]
    for _ in range(2):
        page.switch_to.new_window("window")
        page.get(viewer.url)
        handles.append(page.current_window_handle)
    for handle in handles:
        page.switch_to.window(handle)
        until(lambda: text(page, "f-viewers") == "3")
        assert moves(page)
    press(page, "1")
    page.switch_to.window(first)
    until(lambda: not is_painted(page, SHAFT))
    page.refresh()
    until(lambda: text(page, "fps") not in ("", "–"))
    until(lambda: not is_painted(page, SHAFT) and is_painted(page, KIDNEY))
    for handle in handles[1:]:
        page.switch_to.window(handle)
        page.close()
    page.switch_to.window(first)
    until(lambda: text(page, "f-viewers") == "1")


def test_token_in_the_address_gives_access_without_trace(chromium: Any, player: Player) -> None:
    with serve(player, "0.0.0.0") as viewer:
        plain = viewer.url.split("#")[0]
        chromium.get(plain)
        chromium.find_element("id", "token").send_keys("wrong\n")
        until(lambda: "not the token" in text(chromium, "problem"))
        chromium.get("about:blank")
        chromium.get(viewer.url)
        until(lambda: chromium.execute_script("return Boolean(document.getElementById('stage'))"))
        until(lambda: text(chromium, "fps") not in ("", "–"))
        assert chromium.current_url == plain
        assert chromium.execute_script("return document.cookie") == ""
        until(lambda: on_webrtc(chromium))
        chromium.delete_all_cookies()
        press(chromium, "i")
        until(lambda: text(chromium, "follow-status").startswith("Not followed: a token is needed"))
        press(chromium, "c")
        until(lambda: text(chromium, "outcome").startswith("Not changed: a token is needed"))
        assert chromium.find_element("id", "outcome").size["height"] > 20, "seen by all"


def test_the_keys_are_listed_and_can_be_switched_off(page: Any, player: Player) -> None:
    press(page, "?")
    until(lambda: page.find_element("id", "keys").is_displayed())
    page.find_element("css selector", "label[for=shortcuts]").click()
    webdriver.ActionChains(page).send_keys(webdriver.Keys.ESCAPE).perform()
    until(lambda: not page.find_element("id", "keys").is_displayed())
    press(page, "c")
    time.sleep(0.3)
    assert player.controls.settings.contours


def test_tab_reaches_everything_in_visual_order(page: Any) -> None:
    reached: list[str] = []
    for _ in range(30):
        webdriver.ActionChains(page).send_keys(webdriver.Keys.TAB).perform()
        reached.append(page.execute_script("return document.activeElement.id || document.activeElement.name || ''"))
        if len(reached) > 3 and reached[-1] in ("", *reached[:1]):
            break
    wanted = [
        "theme",
        "help",
        "freeze",
        "beside",
        "snapshot",
        "record",
        "full",
        "opacity",
        "contours",
        "all",
        "shaft",
        "kidney",
    ]
    assert [name for name in reached if name in wanted] == wanted


# The buttons whose words reach over their edges.
CRAMPED = """
return [...document.querySelectorAll(".tools button:not([hidden])")].filter((button) => {
  const [outer, inner] = [button, button.querySelector("span")].map((node) => node.getBoundingClientRect());
  return inner.left < outer.left - 1 || inner.right > outer.right + 1;
}).map((button) => button.id);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_axe_finds_nothing(page: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        with media(page, prefers_color_scheme=scheme):
            page.execute_script((files(axe.__name__) / "axe.min.js").read_text())
            for opening in ("", "document.getElementById('keys').showModal()"):
                page.execute_script(opening)
                found = page.execute_async_script(
                    "axe.run(document, {}, (e, r) => arguments[0](e ? String(e) : r.violations))"
                )
                assert [(rule["id"], [n["html"][:200] for n in rule["nodes"]]) for rule in found] == []
            assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            assert page.execute_script(CRAMPED) == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_themes_follow_the_system_and_the_key(page: Any) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    with media(page, prefers_color_scheme="dark"):
        dark = page.execute_script(ground)
    with media(page, prefers_color_scheme="light"):
        light = page.execute_script(ground)
        press(page, "tt")
        until(lambda: page.execute_script(ground) == dark != light)
        assert text(page, "theme-text") == "Theme: dark"


def test_nothing_moves_for_those_who_want_no_motion(page: Any) -> None:
    running = "return document.getAnimations().length"
    press(page, "r")
    until(lambda: page.find_element("id", "recording").is_displayed())
    with media(page, prefers_reduced_motion="reduce"):
        until(lambda: page.execute_script(running) == 0)
    with media(page, prefers_reduced_motion="no-preference"):
        until(lambda: page.execute_script(running) > 0)


def drawn(page: Any, selector: str) -> np.ndarray:
    page.execute_script("document.activeElement.blur()")
    data = page.find_element("css selector", selector).screenshot_as_png
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_forced_colors_show_the_state_of_every_control(page: Any) -> None:
    with media(page, forced_colors="active"):
        for selector, key in (("label[for=contours] i", "c"), ("#freeze", " "), ("#opacity", "[")):
            before = drawn(page, selector)
            press(page, key)
            until(lambda s=selector, b=before: not np.array_equal(drawn(page, s), b))
            press(page, "]" if key == "[" else key)
        slider = drawn(page, "#opacity")
        assert np.ptp(slider[:, slider.shape[1] * 3 // 4]) > 100, "the track"
        assert np.ptp(drawn(page, "label[for=contours] i")) > 100


def test_a_zoomed_window_is_not_filled_by_the_header(page: Any) -> None:
    """Four times 1280 x 1024: what stays in place must leave room for what is read."""
    size = {"width": 320, "height": 256, "deviceScaleFactor": 4, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.execute_script("scrollTo(0, 400)")
        covered = "return [innerHeight / 8, innerHeight / 3].map((y) => document.elementFromPoint(100, y)?.closest('.panel')?.id)"
        until(lambda: page.execute_script(covered) == ["panel", "panel"])
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def over_image(page: Any, place: tuple[int, int]) -> Any:
    """A chain of actions that begins with the pointer at a place of the live image of 320x240."""
    script = "const box = document.getElementById('live').getBoundingClientRect();"
    scale = page.execute_script(script + "return Math.min(box.width / 320, box.height / 240)")
    figure = page.find_element("id", "live")
    x, y = round((place[0] - 160) * scale), round((place[1] - 120) * scale)
    return webdriver.ActionChains(page).move_to_element_with_offset(figure, x, y)


def test_a_clicked_instrument_is_followed_lost_and_found(chromium: Any) -> None:
    hidden: set[int] = set()
    follow = FollowControl()
    with Player(tracked(hidden), follow=follow) as player, serve(player) as viewer:
        chromium.get(viewer.url)
        until(lambda: text(chromium, "fps") not in ("", "–"))
        until(lambda: chromium.find_element("id", "follow-next").is_displayed())
        state, note = (chromium.find_element("id", name) for name in ("follow", "follow-status"))
        assert note.aria_role == "status"
        assert not state.is_displayed()
        over_image(chromium, KIDNEY).click().perform()
        until(lambda: text(chromium, "follow-status") == "Following #2")
        assert state.text == "Following #2"
        hidden.add(2)
        until(lambda: text(chromium, "follow-status") == "#2 is lost")
        assert state.text == "#2 is lost"
        hidden.clear()
        until(lambda: text(chromium, "follow-status") == "#2 found again")
        over_image(chromium, BARE).click().perform()
        until(lambda: text(chromium, "follow-status").startswith("Not followed: no instrument is at that point"))
        assert follow.choice == (0, 2)
        over_image(chromium, (5, 30)).click_and_hold().move_by_offset(60, 40).perform()
        over_image(chromium, (120, 180)).release().perform()
        until(lambda: text(chromium, "follow-status") == "Following #1")


def test_instruments_are_followed_by_keys_and_buttons(chromium: Any) -> None:
    with Player(tracked(set()), follow=FollowControl()) as player, serve(player) as viewer:
        chromium.get(viewer.url)
        until(lambda: text(chromium, "fps") not in ("", "–"))
        for number in (1, 2, 1):
            press(chromium, "i")
            until(lambda n=number: text(chromium, "follow-status") == f"Following #{n}")
        press(chromium, "x")
        until(lambda: text(chromium, "follow-status") == "Following ended")
        until(lambda: not chromium.find_element("id", "follow").is_displayed())
        click(chromium, "follow-next")
        until(lambda: text(chromium, "follow-status") == "Following #1")
        click(chromium, "follow-end")
        until(lambda: text(chromium, "follow-status") == "Following ended")
        press(chromium, "?")
        until(lambda: "follow the next instrument" in chromium.find_element("id", "keys").text)


def test_without_ids_following_is_refused_with_the_reason(page: Any) -> None:
    assert not page.find_element("id", "follow-next").is_displayed()
    press(page, "i")
    until(lambda: "not tracked: start the program with --ids" in text(page, "follow-status"))
    assert page.find_element("id", "follow").is_displayed()


def test_full_screen(page: Any) -> None:
    press(page, "f")
    until(lambda: page.execute_script("return document.fullscreenElement?.id") == "stage")
    assert page.find_element("id", "full").get_attribute("aria-pressed") == "true"
    press(page, "f")
    until(lambda: page.execute_script("return !document.fullscreenElement"))


OVERLAP = """
const range = document.createRange();
range.selectNodeContents(document.querySelector("h1"));
const text = document.querySelector("h1").lastChild;
range.selectNode(text);
const [a, b] = [document.querySelector("h1 img").getBoundingClientRect(), range.getBoundingClientRect()];
const form = document.getElementById("form").getBoundingClientRect();
return [b.width > 0, a.right <= b.left, Math.max(a.bottom, b.bottom) <= form.top, form.right <= innerWidth];
"""


@pytest.mark.parametrize("width", [1280, 360])
def test_the_logo_of_the_login_page_stands_beside_its_text(chromium: Any, player: Player, width: int) -> None:
    with serve(player, "0.0.0.0") as viewer:
        chromium.set_window_size(width, 800)
        try:
            chromium.get(f"http://127.0.0.1:{viewer.port}/")
            until(lambda: chromium.execute_script("return document.styleSheets.length"))
            assert chromium.execute_script(OVERLAP) == [True, True, True, True]
        finally:
            chromium.set_window_size(1280, 800)


@contextmanager
def played(path: Path) -> Iterator[tuple[Playback, WebViewer]]:
    """A file of four seconds on the page, without segmentation."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(100):
            image = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 2 * number, np.uint8), "rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    playback = Playback(open_source(path), lambda seconds: open_file_at(str(path), seconds), waits=True)
    live = LiveStream(
        LiveCapture(lambda: open_source(path), playback, name="clip"), Overlay(CLASSES), playback=playback
    )
    program = ProgramInfo(live.broadcast, live.controls, live.info, CLASSES, False, "test", playback)
    with WebViewer(program, ANY) as viewer:
        runner = threading.Thread(target=live.run)
        runner.start()
        try:
            yield playback, viewer
        finally:
            live.stop()
            runner.join()


def test_file_starts_with_page_and_can_replay_and_seek(chromium: Any, tmp_path: Path) -> None:
    with played(tmp_path / "clip.mp4") as (playback, viewer):
        assert playback.is_waiting
        chromium.get(viewer.url)
        until(lambda: chromium.find_element("id", "seek-row").is_displayed())
        slider = chromium.find_element("id", "seek")
        assert slider.accessible_name == "Position in the file"
        assert slider.aria_role == "slider"
        until(lambda: text(chromium, "state-text") == "Ended")
        until(lambda: text(chromium, "seek-value").endswith("/ 0:04"))
        assert playback.jumps == 0
        click(chromium, "replay")
        until(lambda: playback.jumps == 1)
        until(lambda: text(chromium, "state-text") != "Ended")
        until(lambda: text(chromium, "state-text") == "Ended")
        slider.send_keys(webdriver.Keys.HOME)
        until(lambda: playback.jumps == 2)
        until(lambda: 0 < playback.position < 3)
        assert re.fullmatch(r"0:0\d of 0:04", slider.get_attribute("aria-valuetext"))


def test_another_site_can_open_the_page_and_nothing_else(chromium: Any, viewer: WebViewer, tmp_path: Path) -> None:
    """The page of another origin tries a frame, a picture, a script, a style, a fetch, a socket and a download."""
    place = f"127.0.0.1:{viewer.port}"
    page = f"""<!doctype html><title>other</title><script>
    const tried = {{}};
    const tag = (name, attribute, path) => {{
      const node = document.createElement(name);
      node.onload = () => (tried[path] = "loaded");
      node.onerror = () => (tried[path] = "refused");
      node[attribute] = "http://{place}" + path;
      if (name === "link") node.rel = "stylesheet";
      document.documentElement.append(node);
    }};
    tag("img", "src", "/snapshot.png");
    tag("script", "src", "/static/viewer.js");
    tag("link", "href", "/static/viewer.css");
    const socket = new WebSocket("ws://{place}/ws");
    socket.onopen = () => (tried.socket = "loaded");
    socket.onerror = () => (tried.socket = "refused");
    for (const path of ["/api/stream", "/metrics"])
      fetch("http://{place}" + path).then(() => (tried[path] = "loaded"), () => (tried[path] = "refused"));
    window.tried = tried;
    </script>"""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text(page)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        try:
            chromium.get(f"http://localhost:{site.server_port}/")
            until(lambda: chromium.execute_script("return Object.keys(tried).length") == 6)
            assert set(chromium.execute_script("return Object.values(tried)")) == {"refused"}
            chromium.execute_script("location = arguments[0]", f"http://{place}/metrics")
            until(lambda: "refused" in chromium.page_source)
            chromium.get(f"http://localhost:{site.server_port}/")
            chromium.execute_script("location = arguments[0]", f"http://{place}/")
            until(lambda: text(chromium, "fps") not in ("", "–"))
        finally:
            site.shutdown()
