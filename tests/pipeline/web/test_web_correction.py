"""Corrections in the page, in a real Chromium and by bare requests: clicks, a box, keys alone, reloads, and two at once."""

from __future__ import annotations

import http.client
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from correction_fakes import HEIGHT, WIDTH, corrected_clip
from waiting import until
from webplayer import CLASSES

pytest.importorskip("aiortc", reason="the extra `live` is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from cliprl.pipeline.correction.service import CorrectionService  # noqa: E402
from cliprl.pipeline.web.address import Address  # noqa: E402
from cliprl.pipeline.web.server import WebViewer  # noqa: E402
from cliprl.pipeline.web.status_json import ProgramInfo  # noqa: E402

LIMIT = 60.0
needs_chromium = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no Chromium with chromedriver here"
)
PIXEL = """
const canvas = document.getElementById("correct-canvas");
return [...canvas.getContext("2d").getImageData(arguments[0], arguments[1], 1, 1).data.slice(0, 3)];
"""
# Where a pixel of the held image is on the screen.
PLACE = """
const canvas = document.getElementById("correct-canvas"), box = canvas.getBoundingClientRect();
const scale = Math.max(canvas.width / box.width, canvas.height / box.height);
return [Math.round(box.left + (box.width - canvas.width / scale) / 2 + arguments[0] / scale),
        Math.round(box.top + (box.height - canvas.height / scale) / 2 + arguments[1] / scale)];
"""
Served = tuple[WebViewer, CorrectionService, Path]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with corrected_clip(tmp_path) as (live, service):
        program = ProgramInfo(live.broadcast, live.controls, live.info, CLASSES, False, "test", live.playback, service)
        with WebViewer(program, Address("127.0.0.1", 0, True)) as viewer:
            yield viewer, service, tmp_path / "kept"


def ask(viewer: WebViewer, name: str, body: object) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)) as connection:
        connection.request("POST", f"/api/correction/{name}", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        kind = answer.getheader("Content-Type") or ""
        return answer.status, json.loads(data) if "json" in kind else data.decode()


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("prompt", {"class": "nose", "point": [1, 1], "positive": True}, "unknown class"),
        ("prompt", {"class": "shaft", "point": [1], "positive": True}, "not 2 numbers"),
        ("prompt", {"class": "shaft", "point": [1, True], "positive": True}, "not 2 numbers"),
        ("prompt", {"class": "shaft", "point": [1, 999], "positive": True}, "outside of the image"),
        ("prompt", {"class": "shaft", "point": [1, 1], "box": [1, 1, 2, 2]}, "or a box"),
        ("prompt", {"class": "shaft"}, "send a point"),
        ("prompt", {"class": ["shaft"], "point": [1, 1]}, "type str"),
        ("step", {"by": 7}, "send 1 or -1"),
        ("step", {"by": True}, "type int"),
        ("keep", {"author": "a\nb"}, "printable"),
        ("keep", {"author": "a" * 61}, "printable"),
        ("keep", {}, "'author' is missing"),
        ("undo", {"file": "/etc/passwd"}, "unknown key"),
    ],
)
def test_bad_requests_are_refused_in_one_line(served: Served, name: str, fields: dict[str, Any], reason: str) -> None:
    viewer, _, kept = served
    status, state = ask(viewer, "hold", {})
    assert status == 200
    status, answer = ask(viewer, name, {"id": state["id"], **fields})
    assert status == 400
    assert reason in answer["error"]
    assert not (kept / "corrections.jsonl").exists()


def test_frames_that_are_not_held_are_gone(served: Served) -> None:
    viewer, _, _ = served
    gone = {"error": "this frame is not held any more: hold it again"}
    assert ask(viewer, "undo", {"id": "../../secret"}) == (410, gone)
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)) as connection:
        connection.request("GET", "/api/correction/image?id=x")
        assert connection.getresponse().status == 410


def test_image_and_mask_have_the_size_of_the_frame(served: Served) -> None:
    viewer, _, _ = served
    _, state = ask(viewer, "hold", {})
    assert (state["width"], state["height"]) == (WIDTH, HEIGHT)
    with closing(http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=LIMIT)) as connection:
        connection.request("GET", f"/api/correction/image?id={state['id']}")
        image = cv2.imdecode(np.frombuffer(connection.getresponse().read(), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (HEIGHT, WIDTH, 3)


def text(page: Any, name: str) -> str:
    return str(page.execute_script("return document.getElementById(arguments[0]).textContent", f"correct-{name}"))


def told(page: Any, part: str) -> None:
    until(lambda: part in text(page, "note"))


def is_shaft(page: Any, x: int, y: int) -> bool:
    red, green, _ = page.execute_script(PIXEL, x, y)
    return green > red + 40


def at(page: Any, x: int, y: int, *, button: int = 0) -> Any:
    mouse = webdriver.ActionChains(page).w3c_actions
    left, top = page.execute_script(PLACE, x, y)
    mouse.pointer_action.move_to_location(left, top)
    mouse.pointer_action.pointer_down(button)
    return mouse


def click(page: Any, x: int, y: int, *, button: int = 0) -> None:
    mouse = at(page, x, y, button=button)
    mouse.pointer_action.pointer_up(button)
    mouse.perform()


def keys(page: Any, *what: str) -> None:
    webdriver.ActionChains(page).send_keys(*what).perform()


def open_page(page: Any, viewer: WebViewer) -> None:
    page.get(viewer.url)
    button = page.find_element("id", "correct")
    until(button.is_displayed)
    button.click()
    told(page, "Frame held")


@needs_chromium
def test_clicks_boxes_and_undo_change_the_mask(chromium: Any, served: Served) -> None:
    viewer, _, kept = served
    open_page(chromium, viewer)
    click(chromium, 80, 60)
    told(chromium, "Added: shaft")
    assert is_shaft(chromium, 95, 60)
    assert float(chromium.find_element("id", "correct-canvas").get_attribute("data-milliseconds")) > 0
    click(chromium, 95, 60, button=2)
    told(chromium, "Removed: shaft")
    assert not is_shaft(chromium, 100, 60)
    chromium.find_element("id", "correct-undo").click()
    told(chromium, "Undone")
    assert is_shaft(chromium, 100, 60)
    mouse = at(chromium, 200, 150)
    left, top = chromium.execute_script(PLACE, 280, 210)
    mouse.pointer_action.move_to_location(left, top)
    mouse.pointer_action.pointer_up()
    mouse.perform()
    told(chromium, "Box: shaft")
    assert is_shaft(chromium, 240, 180)
    chromium.find_element("id", "correct-author").send_keys("Ada")
    chromium.find_element("id", "correct-keep").click()
    told(chromium, "Kept as revision 1.")
    seconds = float(text(chromium, "frame").split()[0])
    assert text(chromium, "kept") == "1 revision of 1 frame kept"
    chromium.find_element("id", "correct-next").click()
    told(chromium, "it follows the correction")
    until(lambda: is_shaft(chromium, 240, 180))
    chromium.find_element("id", "correct-follow").click()
    told(chromium, "Frame 10 of 10 that follow.")
    assert is_shaft(chromium, 240, 180)
    assert text(chromium, "frame").startswith(f"{seconds + 11 / 25:.2f} s")
    assert json.loads((kept / "corrections.jsonl").read_text())["author"] == "Ada"
    assert [entry for entry in chromium.get_log("browser") if f":{viewer.port}/" in entry["message"]] == []


@needs_chromium
def test_keyboard_alone_corrects_and_keeps(chromium: Any, served: Served) -> None:
    viewer, service, _ = served
    chromium.get(viewer.url)
    until(chromium.find_element("id", "correct").is_displayed)
    keys(chromium, "e")
    told(chromium, "Frame held")
    assert chromium.execute_script("return document.activeElement.id") == "correct-canvas"
    keys(chromium, "2", "1")
    told(chromium, "Class shaft")
    keys(chromium, *[webdriver.Keys.ARROW_RIGHT] * 3, webdriver.Keys.ENTER)
    told(chromium, "Added: shaft")
    label = chromium.find_element("id", "correct-canvas").get_attribute("aria-label")
    x, y = map(int, re.findall(r"\d+", label))
    assert x > WIDTH / 2
    assert y == HEIGHT / 2
    keys(chromium, webdriver.Keys.ARROW_UP, webdriver.Keys.DELETE)
    told(chromium, "Removed: shaft")
    keys(chromium, "u")
    told(chromium, "Undone")
    keys(chromium, "b", *[webdriver.Keys.ARROW_DOWN] * 4, webdriver.Keys.ARROW_RIGHT, "b")
    told(chromium, "Box: shaft")
    keys(chromium, "k")
    told(chromium, "Kept as revision 1.")
    keys(chromium, "n")
    told(chromium, "Frame at")
    keys(chromium, "p")
    told(chromium, "revision 1 was kept")
    keys(chromium, webdriver.Keys.ESCAPE)
    until(lambda: not chromium.find_element("id", "correction").is_displayed())
    assert chromium.execute_script("return document.activeElement.id") == "correct"
    assert len(service.store.revisions()) == 1


@needs_chromium
def test_reloads_lose_nothing_and_conflicts_are_told(chromium: Any, served: Served) -> None:
    viewer, service, _ = served
    open_page(chromium, viewer)
    click(chromium, 80, 60)
    told(chromium, "Added: shaft")
    chromium.refresh()
    told(chromium, "Frame held")
    assert is_shaft(chromium, 95, 60)
    first = chromium.current_window_handle
    chromium.switch_to.new_window("window")
    try:
        open_page(chromium, viewer)
        click(chromium, 200, 200)
        told(chromium, "Added: shaft")
        chromium.find_element("id", "correct-author").send_keys("Grace")
        chromium.find_element("id", "correct-keep").click()
        told(chromium, "Kept as revision 1.")
    finally:
        chromium.close()
        chromium.switch_to.window(first)
    click(chromium, 100, 60)
    told(chromium, "Grace has kept revision 1 of this frame.")
    chromium.find_element("id", "correct-keep").click()
    told(chromium, "Kept as revision 2. Meanwhile revision 1 by Grace was kept: both stay")
    assert [one.number for one in service.store.revisions()] == [1, 2]
    chromium.find_element("id", "correct-close").click()
    chromium.refresh()
    until(chromium.find_element("id", "correct").is_displayed)
    chromium.find_element("id", "correct").click()
    told(chromium, "Revision 2 of this frame was kept")
    assert is_shaft(chromium, 95, 60)


def touch(page: Any, kind: str, *places: tuple[int, int]) -> None:
    points = []
    for number, place in enumerate(places):
        left, top = page.execute_script(PLACE, *place)
        points.append({"x": left, "y": top, "id": number})
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


@needs_chromium
def test_two_fingers_are_no_click_and_a_tap_is_one(chromium: Any, served: Served) -> None:
    viewer, _, _ = served
    open_page(chromium, viewer)
    touch(chromium, "Start", (120, 100))
    touch(chromium, "Start", (120, 100), (200, 100))
    touch(chromium, "End")
    touch(chromium, "Start", (80, 60))
    touch(chromium, "End")
    told(chromium, "Added: shaft")
    held = chromium.execute_script("return sessionStorage.getItem('cliprl-held')")
    assert [sorted(one) for one in ask(viewer, "resume", {"id": held})[1]["prompts"]] == [
        ["class", "point", "positive"]
    ]


@needs_chromium
def test_clicks_not_kept_are_discarded_at_a_second_close(chromium: Any, served: Served) -> None:
    viewer, _, _ = served
    open_page(chromium, viewer)
    for x in (80, 200):
        click(chromium, x, 60)
        told(chromium, "Added: shaft")
        keys(chromium, webdriver.Keys.ESCAPE)
        told(chromium, "These clicks are not kept.")
    chromium.find_element("id", "correct-undo").click()
    told(chromium, "Undone")
    assert is_shaft(chromium, 95, 60)
    keys(chromium, webdriver.Keys.ESCAPE)  # also after a click on a button
    told(chromium, "These clicks are not kept.")
    keys(chromium, webdriver.Keys.ESCAPE)
    until(lambda: not chromium.find_element("id", "correction").is_displayed())


# Browsers refuse even the names where a policy forbids storage.
NO_STORAGE = """
for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, name, { get() { throw new DOMException("refused", "SecurityError"); } });
"""


@needs_chromium
def test_without_storage_a_frame_is_held_and_closed(chromium: Any, served: Served) -> None:
    viewer, _, _ = served
    script = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NO_STORAGE})
    try:
        open_page(chromium, viewer)
        until(lambda: chromium.execute_script("return document.activeElement.id") == "correct-canvas")
        keys(chromium, webdriver.Keys.ESCAPE)
        until(lambda: chromium.execute_script("return document.activeElement.id") == "correct")
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


@needs_chromium
def test_axe_finds_nothing_in_the_correction(chromium: Any, served: Served) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    viewer, _, _ = served
    open_page(chromium, viewer)
    chromium.execute_script((files(axe.__name__) / "axe.min.js").read_text())
    for width in (1280, 320):
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            found = chromium.execute_async_script(
                "axe.run(document, {}, (e, r) => arguments[0](e ? String(e) : r.violations))"
            )
            assert [(rule["id"], [n["html"][:200] for n in rule["nodes"]]) for rule in found] == []
            assert chromium.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        finally:
            chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    names = {
        node.accessible_name
        for node in chromium.find_elements("css selector", "#correction :is(button, select, input)")
    }
    assert {"Class", "+ Add", "− Remove", "Box", "Undo", "Next frame", "Keep", "Your name"} <= names
