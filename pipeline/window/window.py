"""The window. It follows the broadcast on a separate thread, so that the display path never waits for the screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import FollowState
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame, RecordState, Status
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.web.media.image_conversion import ImageConverter, png
from cliprl.pipeline.window.held_correction import CORRECTION_HELP, HeldCorrection
from cliprl.pipeline.window.keys import HELP, Keys
from cliprl.pipeline.window.layout import ImageBox, arrange, panel
from cliprl.pipeline.window.sdl import QUIT, PointerEvent, SdlWindow

if TYPE_CHECKING:
    from cliprl.pipeline.correction.service import CorrectionService

# Seconds between checks of the keyboard, and seconds for which a message is displayed.
_TICK, _MESSAGE_S = 0.02, 2.0
# The longer side of drawn images, in pixels; larger frames are scaled down first.
_LONGEST = 3840
_LETTER_SIZE = 18
# Pixels of the window; a shorter drag is a click.
_DRAG = 6
_RECORDING = {
    RecordState.OFF: "",
    RecordState.STARTING: "Recording starts",
    RecordState.RECORDING: "Recording",
    RecordState.FAILED: "Recording failed: trying again",
}


class Window(threading.Thread):
    """Displays the frames of `broadcast` in full size and never pixelated, as the surgeon's display.

    `close` is called when the user closes the window. `opened` is set when the window is open, or has failed to open with the
    error `failed`; `left` is set when the user has closed it. `corrections` corrects held frames,
    `follow` is what viewers follow.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        controls: Controls,
        *,
        title: str,
        live: bool,
        records: bool,
        close: Callable[[], None],
        corrections: CorrectionService | None = None,
        follow: FollowControl | None = None,
    ) -> None:
        super().__init__(name="window", daemon=True)
        self.failed: CliprlError | None = None
        self.opened, self.left = threading.Event(), threading.Event()
        self._broadcast, self._title, self._close = broadcast, title, close
        self._keys = Keys(controls, live, records, follow=follow)
        self._correction = HeldCorrection(corrections) if corrections is not None else None
        self._pressed: PointerEvent | None = None
        self._boxes: dict[str, ImageBox] = {}
        self._converter = ImageConverter()
        self._shows_raw = self._shows_help = False
        self._message: tuple[str, float] = ("H: keys", time.monotonic() + _MESSAGE_S)
        self._drawn_state: tuple[object, ...] = ()
        self._ended = threading.Event()

    def run(self) -> None:
        """Open the window and follow the broadcast until `stop`."""
        try:
            self._screen = SdlWindow(self._title)
        except CliprlError as error:
            self.failed = error
            self._close()
            return
        finally:
            self.opened.set()
        try:
            self._follow()
        finally:
            self._screen.close()

    def stop(self) -> None:
        """Close the window and wait for its end."""
        self._ended.set()
        if self.is_alive():
            self.join()

    def _follow(self) -> None:
        index = -1
        while not self._ended.is_set():
            for event in self._screen.events():
                self._handle(event)
            if self._correction is not None and (message := self._correction.advance()):
                self._show_message(message)
            shown = self._broadcast.wait_newer(index, _TICK)
            if shown is not None:
                index = shown.index
            elif self._broadcast.closed:
                time.sleep(_TICK)
            if (newest := shown or self._broadcast.newest) is not None and self._is_due(newest):
                self._draw(newest)

    @property
    def _corrects(self) -> bool:
        return self._correction is not None and self._correction.is_open

    def _handle(self, event: str | PointerEvent) -> None:
        if isinstance(event, PointerEvent):
            self._point(event)
        elif event in (QUIT, "q") and not (self._corrects and event == "q"):
            self.left.set()
            self._close()
        elif event in ("h", "f1"):
            self._shows_help = not self._shows_help
        elif self._correction is not None and (self._corrects or event == "e"):
            self._correct(self._correction, event)
        elif event == "escape":
            self._screen.set_full_screen(False)
        elif event in ("f", "f11"):
            self._screen.set_full_screen(not self._screen.is_full_screen)
        elif event == "b":
            self._shows_raw = not self._shows_raw
        elif event == "s":
            self._show_message(self._snapshot())
        elif (message := self._keys.press(event)) is not None:
            self._show_message(message)

    def _correct(self, correction: HeldCorrection, key: str) -> None:
        """Do the action of a key of the correction; the first one holds the displayed frame."""
        if correction.is_open:
            message = correction.press(key) or ("Esc ends the correction" if key == "q" else "")
        else:
            if not self._keys.live:
                self._keys.controls.change(paused=True)
            message = correction.open()
        self._screen.show_pointer(correction.is_open or not self._screen.is_full_screen)
        if message:
            self._show_message(message)

    def _point(self, event: PointerEvent) -> None:
        """Take a press and its release as a click, or as a box if the pointer moved in between."""
        start, self._pressed = self._pressed, event if event.pressed else None
        if event.pressed or start is None or (box := self._boxes.get("held" if self._corrects else "live")) is None:
            return
        first, last = (((p.x - box.left) / box.width, (p.y - box.top) / box.height) for p in (start, event))
        corners = (*first, *last) if max(abs(start.x - event.x), abs(start.y - event.y)) > _DRAG else first
        if len(corners) == 2 and not all(0 <= value <= 1 for value in corners):
            return
        if self._correction is not None and self._corrects:
            self._show_message(self._correction.mark(corners, positive=start.plain or len(corners) == 4))
        elif self._keys.follow is not None and start.plain:
            self._show_message(self._keys.follow_by(lambda follow: follow.choose_at(corners, self._rotation)))

    @property
    def _rotation(self) -> int:
        newest = self._broadcast.newest
        return newest.raw.rotation if newest is not None else 0

    def _show_message(self, text: str) -> None:
        self._message = (text, time.monotonic() + _MESSAGE_S)

    def _snapshot(self) -> str:
        """Save the newest frame in the current folder, pixelated outside the body. Return the message for the user."""
        newest = self._broadcast.newest
        if newest is None:
            return "There is no image yet"
        path = Path(f"snapshot_{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{newest.index:06d}.png")
        try:
            path.write_bytes(png(newest.shared_overlaid))
        except OSError as error:
            return f"Not saved ({error.strerror}): start the program in a folder that can be written"
        return f"Saved {path}"

    def _is_due(self, newest: DisplayedFrame) -> bool:
        """Return whether anything visible has changed since the last call."""
        has_message = time.monotonic() < self._message[1]
        state = (
            newest.index,
            self._broadcast.frozen,
            self._shows_raw,
            self._shows_help,
            self._corrects and self._correction and self._correction.version,
            has_message and self._message[0],
            self._screen.size,
            _behind(newest.status.at(time.monotonic())),
        )
        due, self._drawn_state = state != self._drawn_state, state
        return due

    def _draw(self, newest: DisplayedFrame) -> None:
        images = self._images(newest)
        self._screen.clear()
        for name, image in images.items():
            self._screen.load(name, image)
        sizes = [(image.shape[1], image.shape[0]) for image in images.values()]
        for name, box in zip(images, arrange(sizes, *self._screen.size), strict=True):
            self._screen.draw(name, box)
            self._boxes[name] = box
        self._draw_text(newest.status.at(time.monotonic()))
        self._screen.show()

    def _images(self, newest: DisplayedFrame) -> dict[str, NDArray[np.uint8]]:
        """Return the images to draw side by side, BGR, by name. A live image stays beside the one that is corrected."""
        frames: dict[str, Frame] = {"live": newest.overlaid}
        if self._correction is not None and self._correction.is_open:
            held = {"held": self._correction.image()}
            return held | ({"live": self._converter.bgr(newest.overlaid, _LONGEST)} if self._keys.live else {})
        if (still := self._broadcast.frozen) is not None:
            frames["still"] = still.overlaid
        if self._shows_raw:
            frames["raw"] = newest.raw
        return {name: self._converter.bgr(frame, _LONGEST) for name, frame in frames.items()}

    def _draw_text(self, status: Status) -> None:
        width, height = self._screen.size
        if lines := status_lines(status, max(width // _LETTER_SIZE, 20)):
            text = panel(tuple((line,) for line in lines), _LETTER_SIZE)
            self._screen.load("status", text)
            self._screen.draw("status", ImageBox(0, 0, *text.shape[1::-1]))
        if self._shows_help:
            rows = (
                CORRECTION_HELP if self._corrects else (*HELP, ("E", "correct the mask")) if self._correction else HELP
            )
            text = panel(rows, _LETTER_SIZE)
            self._screen.load("help", text)
            self._screen.draw(
                "help", ImageBox((width - text.shape[1]) // 2, (height - len(text)) // 2, *text.shape[1::-1])
            )
        message, until = self._message
        if time.monotonic() < until:
            text = panel(((message,),), _LETTER_SIZE)
            self._screen.load("message", text)
            self._screen.draw(
                "message", ImageBox((width - text.shape[1]) // 2, height - len(text) - 24, *text.shape[1::-1])
            )


def status_lines(status: Status, letters: int) -> tuple[str, ...]:
    """Return the lasting status in lines of at most `letters`: age of the frame, a lost instrument, recording, problems."""
    texts = (_behind(status), _lost(status), _RECORDING[status.record_state], status.note)
    return tuple(line for text in texts for line in wrap(text, letters))


def _behind(status: Status) -> str:
    return "" if status.behind_s is None else f"Behind by {status.behind_s:.0f} s"


def _lost(status: Status) -> str:
    if status.followed is None or status.followed.state is not FollowState.LOST:
        return ""
    return f"#{status.followed.id} is lost" if status.followed.id else "The followed instrument is lost"
