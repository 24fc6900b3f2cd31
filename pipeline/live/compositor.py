"""The pictures that are displayed and shared: with overlay, in blocks, marked as stalled, or a card."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from cliprl.pipeline.core.buffers import PlanePool
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.broadcast import Freshness, SourceState
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.marks import Marks, away
from cliprl.pipeline.live.privacy_guard import pixelated
from cliprl.pipeline.live.segmentation.mask_selection import SelectedMask
from cliprl.pipeline.overlay.overlay import Overlay

# The size (height, width) of the card before the first picture.
FIRST_SIZE = (720, 1280)
# An old mask's age is told to so many milliseconds, rounded up.
_AGE_STEP = 10


class Compositor:
    """Makes pictures out of frames, which it leaves as they are. For use by the display path's thread."""

    def __init__(self, overlay: Overlay, controls: Controls, name: str) -> None:
        self._overlay, self._controls, self._name = overlay, controls, name
        self._base = overlay.style
        self._marks, self._planes = Marks(), PlanePool()

    def overlaid(self, frame: Frame, chosen: SelectedMask, behind: float | None = None) -> Frame:
        """The frame with mask, legend and status line, as the controls are set; and how many seconds it is `behind`, if it is."""
        copy = self._planes.copy(frame)
        style = self._controls.settings.style(self._base, self._overlay.classes)
        if style != self._overlay.style:
            self._overlay.style = style
        self._overlay.draw(copy, chosen.segmentation, self._line(chosen))
        if behind is not None:
            self._marks.behind(copy, behind)
        return copy

    def veiled(self, frame: Frame, behind: float | None = None) -> tuple[Frame, Frame]:
        """The frame in blocks, as it is shared while the scope is out of the body; and the same with a line that says so."""
        raw = pixelated(frame)
        return raw, self.overlaid(raw, SelectedMask(Freshness.OFF, reason="out of the body"), behind)

    def absence(self, camera: LiveCapture, last: Frame | None, *, guarded: bool) -> tuple[Frame, Frame, str]:
        """What is displayed and what is shared while the camera gives no picture, and why no mask is on it.

        The last frame, marked with its age, where the camera has stalled or we are behind; a card of that frame's size and
        colours else.
        """
        standing = camera.standing
        if standing.state is SourceState.STALLED and last is not None:
            own, shared, reason = *self._marked(last, "CAMERA STALLED", guarded), "the camera has stalled"
        elif standing.state is SourceState.BEHIND and last is not None:
            own, shared, reason = *self._marked(last, "BEHIND", guarded), "this machine is too slow"
        else:
            own = self._card(last, away(camera.label, f"{standing.state}: {standing.problem}", standing.since))
            shared, reason = own, "there is no picture"
        for picture in (own, shared):
            picture.times, picture.durations, picture.threads = {}, {}, {}
        return own, shared, reason

    def _marked(self, last: Frame, what: str, guarded: bool) -> tuple[Frame, Frame]:
        own, seconds = self._planes.copy(last), time.monotonic() - last.times["captured"]
        shared = pixelated(last) if guarded else own
        for picture in (own, shared) if guarded else (own,):
            self._marks.stalled(picture, seconds, what)
        return own, shared

    def _card(self, last: Frame | None, lines: Sequence[str]) -> Frame:
        frame = Frame(*self._planes(*FIRST_SIZE), 0, TIME_BASE, 0) if last is None else self._planes.copy(last)
        self._marks.card(frame, lines)
        return frame

    def _line(self, chosen: SelectedMask) -> str:
        """The status line: whose mask this is."""
        if chosen.mask is Freshness.AGED and chosen.age_ms is not None:
            said = f"mask aged {math.ceil(chosen.age_ms / _AGE_STEP) * _AGE_STEP} ms"
        else:
            said = f"mask {chosen.mask}"
        if chosen.reason:
            said += f": {chosen.reason}" if chosen.mask is Freshness.OFF else f" ({chosen.reason})"
        return " · ".join((f"cliprl {self._name}".strip(), said, "research use only"))
