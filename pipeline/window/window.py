"""The window itself: it follows the broadcast on a thread of its own, so that the display path never waits for the screen."""

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
from cliprl.pipeline.window.layout import Box, arrange, panel
from cliprl.pipeline.window.sdl import QUIT, SdlWindow

# Seconds between two looks at the keyboard, and for how long an outcome is told.
_TICK, _TOLD = 0.02, 2.0
# The longer side of what is drawn; larger frames are shrunk first.
_LONGEST = 3840
_LETTERS = 18
_RECORDING = {
    RecordState.OFF: "",
    RecordState.STARTING: "Recording starts",
    RecordState.RECORDING: "Recording",
    RecordState.FAILED: "Recording failed: trying again",
}


class Window(threading.Thread):
    """Shows the broadcast's pictures full size, unguarded, as the surgeon's own display. `close` is called when it is to end.

    `opened` is set once it is there, or `failed` says why it is not; `left` once its user has closed it.
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
        self._beside = self._helps = False
        self._told: tuple[str, float] = ("H: keys", time.monotonic() + _TOLD)
        self._looks: tuple[object, ...] = ()
        self._ended = threading.Event()

    def run(self) -> None:
        """The thread's body."""
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
        """Close the window, and wait until it is."""
        self._ended.set()
        if self.is_alive():
            self.join()

    def _follow(self) -> None:
        index = -1
        while not self._ended.is_set():
            for event in self._screen.events():
                self._react(event)
            shown = self._broadcast.wait_newer(index, _TICK)
            if shown is not None:
                index = shown.index
            elif self._broadcast.closed:
                time.sleep(_TICK)
            if (newest := shown or self._broadcast.newest) is not None and self._is_due(newest):
                self._draw(newest)

    def _react(self, event: str) -> None:
        if event in (QUIT, "q"):
            self.left.set()
            self._close()
        elif event == "escape":
            self._screen.fill(False)
        elif event in ("f", "f11"):
            self._screen.fill(not self._screen.full)
        elif event in ("h", "f1"):
            self._helps = not self._helps
        elif event == "b":
            self._beside = not self._beside
        elif event == "s":
            self._tell(self._snapshot())
        elif (outcome := self._keys.press(event)) is not None:
            self._tell(outcome)

    def _tell(self, text: str) -> None:
        self._told = (text, time.monotonic() + _TOLD)

    def _snapshot(self) -> str:
        """Save the newest picture, guarded as all that is kept, in the current folder."""
        newest = self._broadcast.newest
        if newest is None:
            return "There is no picture yet"
        path = Path(f"snapshot_{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{newest.index:06d}.png")
        try:
            path.write_bytes(png(newest.shared_overlaid))
        except OSError as error:
            return f"Not saved ({error.strerror}): start in a folder that can be written"
        return f"Saved {path}"

    def _is_due(self, newest: DisplayedFrame) -> bool:
        """Whether anything to be seen has changed since the last time."""
        telling = time.monotonic() < self._told[1]
        looks = (
            newest.index,
            self._broadcast.frozen,
            self._beside,
            self._helps,
            telling and self._told[0],
            self._screen.size,
            _behind(newest.status.at(time.monotonic())),
        )
        due, self._looks = looks != self._looks, looks
        return due

    def _draw(self, newest: DisplayedFrame) -> None:
        still = self._broadcast.frozen
        pictures: dict[str, Frame] = {"live": newest.overlaid}
        if still is not None:
            pictures["still"] = still.overlaid
        if self._beside:
            pictures["raw"] = newest.raw
        self._screen.clear()
        sizes = []
        for name, frame in pictures.items():
            image = self._converter.bgr(frame, _LONGEST)
            self._screen.load(name, image)
            sizes.append((image.shape[1], image.shape[0]))
        for name, box in zip(pictures, arrange(sizes, *self._screen.size), strict=True):
            self._screen.draw(name, box)
        self._draw_text(newest.status.at(time.monotonic()))
        self._screen.show()

    def _draw_text(self, status: Status) -> None:
        width, height = self._screen.size
        if lines := standing(status, max(width // _LETTERS, 20)):
            text = panel(tuple((line,) for line in lines), _LETTERS)
            self._screen.load("standing", text)
            self._screen.draw("standing", Box(0, 0, *text.shape[1::-1]))
        if self._helps:
            text = panel(HELP, _LETTERS)
            self._screen.load("help", text)
            self._screen.draw("help", Box((width - text.shape[1]) // 2, (height - len(text)) // 2, *text.shape[1::-1]))
        told, until = self._told
        if time.monotonic() < until:
            text = panel(((told,),), _LETTERS)
            self._screen.load("told", text)
            self._screen.draw("told", Box((width - text.shape[1]) // 2, height - len(text) - 24, *text.shape[1::-1]))


def standing(status: Status, letters: int) -> tuple[str, ...]:
    """What stays in the window while it is true, in lines of at most `letters`: how old the picture is, how recording stands,
    and what is lost.
    """
    told = (_behind(status), _RECORDING[status.record_state], status.note)
    return tuple(line for text in told for line in wrap(text, letters))


def _behind(status: Status) -> str:
    return "" if status.behind_s is None else f"Behind by {status.behind_s:.0f} s"
