"""The window on a real (virtual) screen: what is seen is grabbed from the screen, keys are pressed as a person presses them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from correction_fakes import corrected_clip, known_bundle, service_of
from hypothesis import given
from hypothesis import strategies as st
from webplayer import CLASSES, Player, tracked

from cliprl.pipeline.core.segmentation import Followed, FollowState
from cliprl.pipeline.correction.service import CorrectionService
from cliprl.pipeline.live.broadcast import RecordingStatus, RecordState, Status
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.window.held_correction import HeldCorrection
from cliprl.pipeline.window.keys import Keys
from cliprl.pipeline.window.layout import arrange, panel

pytest.importorskip("sdl2", reason="the extra `window` is not installed")

SIZE = (640, 480)
# Seconds after which a test gives up waiting for what has to come.
LIMIT = 60.0
GREY = round((110 - 16) * 255 / 219)
needs_screen = pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="no Xvfb and xdotool here"
)


@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=3),
    st.integers(64, 4000),
    st.integers(64, 3000),
)
def test_images_lie_side_by_side_and_keep_their_aspect(sizes: list[tuple[int, int]], width: int, height: int) -> None:
    boxes = arrange(sizes, width, height)
    end = 0
    for size, box in zip(sizes, boxes, strict=True):
        assert end <= box.left
        end = box.left + box.width
        assert end <= width
        assert box.top >= 0
        assert box.top + box.height <= height
        # within a pixel of its aspect
        assert abs(box.width * size[1] - box.height * size[0]) <= max(size)


def test_keys_change_the_controls_and_say_so() -> None:
    controls = Controls(CLASSES)
    keys = Keys(controls, live=False, records=True)
    assert keys.press("]") == keys.press("-") or controls.settings.opacity == 0.4
    for key, told, name, value in [
        ("o", "Opacity 0 %", "opacity", 0.0),
        ("O", "Opacity 40 %", "opacity", 0.4),
        ("=", "Opacity 45 %", "opacity", 0.45),
        ("c", "Contours off", "contours", False),
        ("1", "shaft hidden", "hidden", frozenset({"shaft"})),
        ("a", "All classes shown", "hidden", frozenset()),
        ("a", "All classes hidden", "hidden", frozenset({"shaft", "kidney"})),
        ("2", "kidney shown", "hidden", frozenset({"shaft"})),
        ("space", "Frozen image on", "frozen", True),
        ("r", "Recording starts", "recording", True),
        ("p", "Pause on", "paused", True),
    ]:
        assert keys.press(key) == told
        assert getattr(controls.settings, name) == value
    assert keys.press("9") is None
    assert keys.press("left shift") is None
    camera = Keys(Controls(CLASSES), live=True, records=False)
    assert camera.press("p") is None
    assert camera.press("r") is None


def test_recording_state_and_losses_stay_in_the_window() -> None:
    pytest.importorskip("sdl2", reason="the extra `window` is not installed")
    from cliprl.pipeline.window.window import status_lines

    assert status_lines(Status(), 40) == ()
    assert status_lines(Status(recordings=(RecordingStatus("raw", RecordState.RECORDING),)), 40) == ("Recording",)
    failed = Status(
        recordings=(RecordingStatus("raw", RecordState.FAILED), RecordingStatus("overlay", RecordState.RECORDING)),
        note="the raw recording has failed: no room",
    )
    assert status_lines(failed, 30) == ("Recording failed: trying again", "the raw recording has failed:", "no room")
    lost = Status(followed=Followed(FollowState.LOST, 2))
    assert status_lines(lost, 40) == ("#2 is lost",)


def test_a_panel_holds_its_text() -> None:
    image = panel((("O", "overlay"), ("Space", "still")), 16)
    assert image.shape[2] == 4
    assert image[..., :3].max() > 200
    assert (image[:, 0, :3] < 40).all()


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """An X server of its own; its name."""
    read, write = os.pipe()
    words = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-nolisten", "tcp"]
    with subprocess.Popen(words, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as told:
            name = f":{told.readline().strip()}"
        yield name
        server.terminate()


def grab(screen: str) -> np.ndarray:
    """What is on the screen, RGB."""
    with av.open(screen, format="x11grab", options={"video_size": f"{SIZE[0]}x{SIZE[1]}"}) as grabbed:
        return next(grabbed.decode(video=0)).to_ndarray(format="rgb24").astype(int)


class Shown:
    """A window with a player behind it."""

    def __init__(self, screen: str, player: Player, corrections: CorrectionService | None = None) -> None:
        from cliprl.pipeline.window.window import Window

        self.screen, self.player = screen, player
        self.closed = threading.Event()
        self.window = Window(
            player.broadcast,
            player.controls,
            title="test",
            live=True,
            records=True,
            close=self.closed.set,
            corrections=corrections,
            follow=player.follow,
        )
        self.window.start()
        assert self.window.opened.wait(LIMIT)
        assert self.window.failed is None
        self.until(lambda image: image.max() > 50)  # before it is there, keys are lost
        self.press("f")
        self.until(lambda image: image[240, 320].max() > 50)

    def press(self, *keys: str) -> None:
        environment = os.environ | {"DISPLAY": self.screen}
        subprocess.run(["xdotool", "key", *keys], env=environment, check=True, timeout=LIMIT)

    def mouse(self, *words: object) -> None:
        environment = os.environ | {"DISPLAY": self.screen}
        subprocess.run(["xdotool", *map(str, words)], env=environment, check=True, timeout=LIMIT)

    def grab(self) -> np.ndarray:
        return grab(self.screen)

    def until(self, fine: Callable[[np.ndarray], bool]) -> np.ndarray:
        deadline = time.monotonic() + LIMIT
        while not fine(image := self.grab()):
            assert time.monotonic() < deadline, "it was never seen"
            time.sleep(0.05)
        return image


@pytest.fixture
def shown(screen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shown]:
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.chdir(tmp_path)
    with Player() as player:
        player.broadcast.wait_newer(-1, LIMIT)
        service = service_of(player.broadcast, tmp_path / "none", tmp_path / "kept", known_bundle(tmp_path / "b"))
        display = Shown(screen, player, service)
        yield display
        display.window.stop()
    assert not display.window.is_alive()


def painted(image: np.ndarray, x: int, y: int = 200) -> bool:
    return bool(np.ptp(image[y, x]) > 30)


@needs_screen
def test_full_screen_shows_the_true_picture_and_it_moves(shown: Shown) -> None:
    image = shown.until(lambda image: painted(image, 100))
    for x, spec in ((100, CLASSES[1]), (520, CLASSES[2])):
        assert np.abs(image[200, x] - (np.array(spec.color) * 0.4 + GREY * 0.6)).max() <= 3
    assert np.abs(image[200, 320] - GREY).max() <= 1
    shown.until(lambda later: (later[400:440] != image[400:440]).any())


@needs_screen
def test_keys_work_and_what_they_did_is_told(shown: Shown) -> None:
    shown.press("1")
    shown.until(lambda image: not painted(image, 100) and painted(image, 520))
    shown.press("o")
    shown.until(lambda image: not painted(image, 520))
    shown.press("o", "1")
    shown.until(lambda image: painted(image, 100) and painted(image, 520))
    shown.until(lambda image: shown.press("c") or (image[430:460, 250:390] > 230).sum() > 60)  # it stands for 2 s
    shown.press("h")
    shown.until(lambda image: (image[100:380, 200:440] < 40).mean() > 0.4)
    shown.press("h")
    shown.press("r")
    shown.until(lambda image: shown.player.controls.settings.recording)


@needs_screen
def test_the_raw_picture_beside_the_overlay(shown: Shown) -> None:
    shown.press("b")
    shown.until(lambda image: painted(image, 50, 220) and not painted(image, 372, 220) and image[220, 480].min() > 50)


@needs_screen
def test_a_still_stands_beside_the_picture_that_goes_on(shown: Shown) -> None:
    shown.press("space")
    image = shown.until(lambda image: painted(image, 50, 220) and painted(image, 372, 220))
    still, live = (slice(323, 640), slice(0, 317))
    later = shown.until(lambda later: (later[320:360, live] != image[320:360, live]).any())
    assert (later[120:360, still] == image[120:360, still]).all()
    shown.press("space")
    shown.until(lambda image: painted(image, 100))


@needs_screen
def test_the_command_shows_a_window_and_q_ends_it(screen: str, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("cliprl-stream"), "demo:?size=160x128&seconds=0", "--window", "-q"]
    environment = os.environ | {"DISPLAY": screen, "SDL_VIDEODRIVER": "x11"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 2 * LIMIT
        while process.poll() is None and time.monotonic() < deadline:
            if grab(screen).mean() > 20:
                subprocess.run(["xdotool", "key", "q"], env=environment, check=True, timeout=LIMIT)
            time.sleep(0.2)
        process.kill()
        error = process.stderr.read() if process.stderr else ""
    assert process.returncode == 0
    assert [line for line in error.splitlines() if "it came too late" not in line] == []  # as on a busy machine
    assert list(tmp_path.iterdir()) == []


@needs_screen
def test_a_snapshot_is_saved_where_one_is(shown: Shown, tmp_path: Path) -> None:
    shown.press("s")
    shown.until(lambda image: any(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in tmp_path.glob("*.png")))
    (path,) = tmp_path.glob("snapshot*")
    assert re.fullmatch(r"snapshot_\d+T\d+Z_\d+\.png", path.name)
    assert cv2.imread(str(path)).shape == (240, 320, 3)


@needs_screen
def test_q_ends_and_so_does_the_window_s_own_button(shown: Shown) -> None:
    shown.press("q")
    assert shown.closed.wait(LIMIT)


@needs_screen
def test_clicks_and_keys_correct_a_held_frame(shown: Shown, tmp_path: Path) -> None:
    shown.press("e")
    held = slice(0, 318)
    shown.until(lambda image: image[240, 160].max() > 50 and not painted(image, 50, 220) and painted(image, 372, 220))
    shown.mouse("mousemove", 100, 240, "click", 1)
    shown.until(lambda image: painted(image, 92, 232))  # the pointer hides what is right of it and below
    shown.mouse("mousemove", 104, 240, "click", 3)
    shown.until(lambda image: not painted(image, 92, 232))
    shown.press("u")
    shown.until(lambda image: painted(image, 92, 232))
    shown.mouse("mousemove", 200, 200, "mousedown", 1, "mousemove", 280, 260, "mouseup", 1)
    shown.until(lambda image: painted(image, 230, 220))
    shown.press("k")
    deadline = time.monotonic() + LIMIT
    while not (log := tmp_path / "kept" / "corrections.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [list(one)[1] for one in json.loads(log.read_text())["prompts"]] == ["point", "box"]
    shown.press("f")
    shown.until(lambda image: bool(np.ptp(image[:, held], axis=2).max() > 30))
    shown.press("Escape")
    shown.until(lambda image: painted(image, 100) and painted(image, 520))


@needs_screen
def test_a_click_in_the_window_follows(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    hidden, follow = set[int](), FollowControl()
    with Player(tracked(hidden), follow=follow) as player:
        player.broadcast.wait_newer(-1, LIMIT)
        display = Shown(screen, player)
        try:
            display.until(lambda image: painted(image, 460, 120))
            display.mouse("mousemove", 520, 200, "click", 1)
            display.until(lambda image: follow.choice == (0, 2))
            display.press("i")
            display.until(lambda image: follow.choice == (0, 1))
            corner = (slice(20), slice(120))  # where the window states what is lost
            before = display.grab()[corner]
            hidden.add(1)
            display.until(lambda image: np.abs(image[corner] - before).mean() > 15)
            display.press("x")
            display.until(lambda image: follow.choice == (0, 0))
        finally:
            display.window.stop()


def test_keys_state_why_nothing_is_followed() -> None:
    follow = FollowControl()
    keys = Keys(Controls(CLASSES), live=True, records=False, follow=follow)
    assert keys.press("i") == "Not followed: no instrument is in view: wait until one has a number"
    follow.update(tracked(set())(0)[1], 0)
    assert keys.press("I") == "Following #1"
    assert keys.press("x") == "Following ended"
    untracked = Keys(Controls(CLASSES), live=True, records=False)
    assert untracked.press("i") == "Not followed: instruments are not tracked: start the program with --ids"


def test_a_held_correction_steps_and_says_so(tmp_path: Path) -> None:
    with corrected_clip(tmp_path) as (_, service):
        correction = HeldCorrection(service)
        assert correction.press("k") == "no frame is held: press E"
        assert correction.open().startswith("Frame held. A click adds to shaft")
        before = correction.image()
        assert correction.image() is before  # not drawn again for each live frame beside it
        assert correction.mark((0.2, 0.25)) == "Added: shaft"
        version = correction.version
        assert (correction.image()[60, 75] != before[60, 75]).any()
        assert correction.press("o") == "Mask hidden"
        assert correction.version > version
        assert (correction.image()[60, 75] == before[60, 75]).all()
        assert correction.press("2") == f"Class {CLASSES[2].name}"
        assert correction.mark((0.5, 0.5, 0.7, 0.8)) == f"Box: {CLASSES[2].name}"
        assert str(correction.press("n")).endswith(" s: it follows. The last frame is not kept")
        assert str(correction.press("p")).endswith(" s: corrected")
        assert correction.press("k") == "Kept as revision 1"
        assert correction.press("f") == "The next 10 frames"
        assert [correction.advance() for _ in range(11)] == [
            *(f"Frame {n} of 10 that follow" for n in range(1, 11)),
            None,
        ]
        assert correction.press("x") is None
        assert correction.press("escape") == "The correction has ended"
        assert not correction.is_open


@pytest.mark.parametrize("driver", ["x11", None])
def test_without_a_screen_it_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, driver: str | None) -> None:
    from cliprl.pipeline.window.window import Window

    if driver:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    else:
        monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":97531")
    with Player() as player:
        closed = threading.Event()
        window = Window(player.broadcast, player.controls, title="test", live=True, records=False, close=closed.set)
        window.start()
        assert closed.wait(LIMIT)
        window.stop()
    assert "--web" in str(window.failed)
    assert "\n" not in str(window.failed)
