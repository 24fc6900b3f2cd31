"""The window. It follows the broadcast on a separate thread, so that the display path never waits for the screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame, RecordState, Status
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.web.media.image_conversion import ImageConverter, png
from cliprl.pipeline.window.keys import HELP, Keys
from cliprl.pipeline.window.layout import ImageBox, arrange, panel
from cliprl.pipeline.window.sdl import QUIT, SdlWindow

# Seconds between checks of the keyboard, and seconds for which a message is displayed.
_TICK, _MESSAGE_S = 0.02, 2.0
# The longer side of drawn images, in pixels; larger frames are scaled down first.
_LONGEST = 3840
_LETTER_SIZE = 18
_RECORDING = {
    RecordState.OFF: "",
    RecordState.STARTING: "Recording starts",
    RecordState.RECORDING: "Recording",
    RecordState.FAILED: "Recording failed: trying again",
}


class Window(threading.Thread):
    """Displays the frames of `broadcast` in full size and never pixelated, as the surgeon's display.

    `close` is called when the user closes the window. `opened` is set when the window is open, or has failed to open with the
    error `failed`; `left` is set when the user has closed it.
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
    ) -> None:
        super().__init__(name="window", daemon=True)
        self.failed: CliprlError | None = None
        self.opened, self.left = threading.Event(), threading.Event()
        self._broadcast, self._title, self._close = broadcast, title, close
        self._keys = Keys(controls, live, records)
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
            shown = self._broadcast.wait_newer(index, _TICK)
            if shown is not None:
                index = shown.index
            elif self._broadcast.closed:
                time.sleep(_TICK)
            if (newest := shown or self._broadcast.newest) is not None and self._is_due(newest):
                self._draw(newest)

    def _handle(self, event: str) -> None:
        if event in (QUIT, "q"):
            self.left.set()
            self._close()
        elif event == "escape":
            self._screen.set_full_screen(False)
        elif event in ("f", "f11"):
            self._screen.set_full_screen(not self._screen.is_full_screen)
        elif event in ("h", "f1"):
            self._shows_help = not self._shows_help
        elif event == "b":
            self._shows_raw = not self._shows_raw
        elif event == "s":
            self._show_message(self._snapshot())
        elif (message := self._keys.press(event)) is not None:
            self._show_message(message)

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
            has_message and self._message[0],
            self._screen.size,
            _behind(newest.status.at(time.monotonic())),
        )
        due, self._drawn_state = state != self._drawn_state, state
        return due

    def _draw(self, newest: DisplayedFrame) -> None:
        still = self._broadcast.frozen
        frames: dict[str, Frame] = {"live": newest.overlaid}
        if still is not None:
            frames["still"] = still.overlaid
        if self._shows_raw:
            frames["raw"] = newest.raw
        self._screen.clear()
        sizes = []
        for name, frame in frames.items():
            image = self._converter.bgr(frame, _LONGEST)
            self._screen.load(name, image)
            sizes.append((image.shape[1], image.shape[0]))
        for name, box in zip(frames, arrange(sizes, *self._screen.size), strict=True):
            self._screen.draw(name, box)
        self._draw_text(newest.status.at(time.monotonic()))
        self._screen.show()

    def _draw_text(self, status: Status) -> None:
        width, height = self._screen.size
        if lines := status_lines(status, max(width // _LETTER_SIZE, 20)):
            text = panel(tuple((line,) for line in lines), _LETTER_SIZE)
            self._screen.load("status", text)
            self._screen.draw("status", ImageBox(0, 0, *text.shape[1::-1]))
        if self._shows_help:
            text = panel(HELP, _LETTER_SIZE)
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
    """Return the lasting status in lines of at most `letters`: the age of the frame, the recording, and problems."""
    texts = (_behind(status), _RECORDING[status.record_state], status.note)
    return tuple(line for text in texts for line in wrap(text, letters))


def _behind(status: Status) -> str:
    return "" if status.behind_s is None else f"Behind by {status.behind_s:.0f} s"
